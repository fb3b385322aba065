"""A server on this machine alone: a Ray of its own that starts with it and ends with it.

Nothing of another Ray that may run here is touched: the address is "local", the folder for sockets and logs
is a temporary one, the token that Ray's processes know one another by is random. Usage statistics and the
dashboard are off.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tome_export.errors import RequestError, ServingError
from tome_export.serving.app import NAME, build_here
from tome_export.serving.config_file import import_path
from tome_export.serving.guard import CLOSE, DRAIN_HEADER, DRAIN_PATH
from tome_export.serving.options import Limits, Listen, ModelOptions, Scale
from tome_export.serving.processes import descendants, wait_until_gone
from tome_export.serving.proxy import Settings, add_services
from tome_export.steps import Steps

_SOCKET_PATH = 40  # Ray's sockets lie some 60 characters below the folder, and 107 is the most for one
_OBJECT_STORE = 512 << 20
_READY_SECONDS = 30.0
_SETTLE_SECONDS = 0.5
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """A running one. `url`: of HTTP. `secret`: to have it drained."""

    url: str
    secret: str
    limits: Limits

    def drain(self) -> int:
        """Turn new requests away and wait for those under way, as long as the limits allow. Returns how many
        were left."""
        deadline = time.monotonic() + self.limits.drain_seconds
        left = self._inside()
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = self._inside()
        self._inside("?" + CLOSE.decode())
        time.sleep(_SETTLE_SECONDS)  # the last answers are on their way, and idle clients hear of it
        return left

    def _inside(self, query: str = "") -> int:
        request = urllib.request.Request(
            self.url + DRAIN_PATH + query, headers={DRAIN_HEADER.decode(): self.secret}, method="POST"
        )
        try:
            with _direct().open(request, timeout=5) as answer:
                return int(answer.read())
        except (OSError, ValueError):  # the process that listens is gone, and whatever it had with it
            return 0


@contextlib.contextmanager
def running(
    options: ModelOptions, scale: Scale, limits: Limits, listen: Listen, steps: Steps, debug: bool = False
) -> Iterator[Server]:
    """A server, ready when the block begins. What is left of it when the block ends is stopped.

    debug: let Ray's own output through. Raises RequestError, ServingError.
    """
    for port in (listen.port, listen.grpc_port):
        _check_free(listen.host, port)
    settings = Settings(limits, listen.host, secrets.token_hex(16))
    folder = Path(tempfile.mkdtemp(prefix="tome-serve-", dir=_short_folder()))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_environment(settings.environment() | _private()))
        import ray  # not before: its library reads the token once, when it is loaded
        from ray import serve

        stack.callback(_stop_ray, ray)
        with steps("ray"):
            _start_ray(ray, serve, options, scale, listen, folder, debug)
        with steps("replicas"):
            try:
                serve.run(build_here(options, scale, limits), name=NAME, route_prefix="/")
            except RuntimeError as error:
                raise ServingError(f"the model could not be served: {_reason(ray, serve, error)}") from None
            shown = f"[{listen.host}]" if ":" in listen.host else listen.host
            server = Server(f"http://{_reachable(shown)}:{listen.port}", settings.secret, limits)
            _wait_until_ready(server.url)
        yield server


def wait_for_signal() -> str:
    """Until SIGTERM or SIGINT; its name. Whichever comes later on is ignored: stopping is under way."""
    told = threading.Event()
    names: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    while not told.wait(0.5):  # in slices, or a signal would not wake it on every platform
        pass
    return names[0]


def cores() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_ray(
    ray: Any, serve: Any, options: ModelOptions, scale: Scale, listen: Listen, folder: Path, debug: bool
) -> None:
    from ray.serve.config import HTTPOptions, gRPCOptions

    try:
        ray.init(
            address="local",
            num_cpus=max(cores(), options.threads * scale.most),
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            log_to_driver=debug,
            configure_logging=debug,
            namespace="serve",
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
        serve.start(
            proxy_location="HeadOnly",
            http_options=HTTPOptions(host=listen.host, port=listen.port),
            grpc_options=gRPCOptions(
                port=listen.grpc_port, grpc_servicer_functions=[import_path(add_services)]
            ),
            logging_config={"enable_access_log": False},
        )
    except (RuntimeError, ConnectionError, TimeoutError, ValueError) as error:
        raise ServingError(f"Ray did not start: {_first_line(error)} (--debug shows more)") from None


def _stop_ray(ray: Any) -> None:
    """And wait for its processes: the ports are theirs."""
    processes = descendants()
    ray.shutdown()
    wait_until_gone(processes, _STOP_SECONDS)


def _private() -> dict[str, str]:
    """Variables for Ray's processes."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_metrics_report_interval_ms": "5000",
        "RAY_worker_niceness": "0",  # or whatever else the machine does would come before the server
        # One model on one machine needs less housekeeping than a cluster, and takes its time from the model.
        "RAY_task_events_report_interval_ms": "0",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    }


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_free(host: str, port: int) -> None:
    """Raises RequestError. Ray's sockets share their port with whoever else does, so another server of ours
    would not be noticed by binding alone."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            if hasattr(socket, "SO_REUSEPORT"):
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            tried.bind(address)
        with socket.socket(family, kind, protocol) as tried:
            tried.settimeout(1)
            if tried.connect_ex(address) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except OSError as error:
        raise RequestError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another port"
        ) from None


def _short_folder() -> str | None:
    """Where a folder's path is short enough for Ray's sockets; None for the usual place."""
    return "/tmp" if len(tempfile.gettempdir()) > _SOCKET_PATH and os.path.isdir("/tmp") else None


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with _direct().open(url + "/v2/health/ready", timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ServingError(f"{url} is not ready after {_READY_SECONDS:g} seconds: {error}") from None
            time.sleep(0.1)


def _direct() -> urllib.request.OpenerDirector:
    """Past any proxy that the environment names: this is our own machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _reason(ray: Any, serve: Any, error: Exception) -> str:
    """What a replica's constructor raised, out of the traceback that Ray keeps of it."""
    with contextlib.suppress(Exception):
        deployments = serve.status().applications[NAME].deployments.values()
        for line in reversed(" \n".join(each.message for each in deployments).splitlines()):
            kind, _, message = line.strip().partition(": ")
            if kind.rpartition(".")[2].endswith("Error") and message:
                return message[:300]
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
