"""`tome-export serve` as a process: start it, find its processes, sample its memory, stop it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tome_export.staging import terminate_as_exit

_MAIN = "import sys; sys.argv[0] = 'tome-export'; from tome_export.cli import main; main()"
_START_SECONDS, _STOP_SECONDS = 120, 60


@dataclass(frozen=True)
class Server:
    """A running server. http, grpc: its ports on this machine. said: the file of its output."""

    process: subprocess.Popen
    http: int
    grpc: int
    said: Path

    def processes(self) -> dict[int, str]:
        """Number -> command line of the process and all that descend from it."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(maxsplit=2) for line in listed.splitlines()]
        found: dict[int, str] = {}
        parents = {self.process.pid}
        while parents:
            found |= {int(row[0]): row[2] for row in rows if int(row[0]) in parents}
            parents = {int(row[0]) for row in rows if int(row[1]) in parents}
        return found

    def replicas(self) -> list[int]:
        """Numbers of the processes that hold a model."""
        return [pid for pid, line in self.processes().items() if line.startswith("ray::ServeReplica")]

    def cpu_seconds(self) -> dict[str, float]:
        """Of processors, used so far: by replicas, the process that listens, the rest of Ray, and the
        clients, which are this process."""
        found = {"replicas": 0.0, "proxy": 0.0, "rest": 0.0, "clients": sum(os.times()[:2])}
        for pid, line in self.processes().items():
            kind = "replicas" if line.startswith("ray::ServeReplica") else "rest"
            found["proxy" if line.startswith("ray::ProxyActor") else kind] += _cpu_seconds(pid)
        return found

    def counts(self) -> tuple[float, float]:
        """Images and runs of the model so far, of /metrics, which is some seconds behind."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = {"images": 0.0, "runs": 0.0}
        for name, value in re.findall(r"^ray_tome_(images|runs)_total\{.*\} (\S+)$", text, re.MULTILINE):
            found[name] += float(value)
        return found["images"], found["runs"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=_STOP_SECONDS)


@contextmanager
def served(bundle: Path, *options: object) -> Iterator[Server]:
    """A server of the bundle on free ports, ready; stopped at the end. Raises RuntimeError with what it
    said."""
    http, grpc = free_ports(2)
    ports = ("--port", http, "--grpc-port", grpc)
    with terminate_as_exit(), tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        command = [sys.executable, "-c", _MAIN, "serve", *map(str, (bundle, *ports, *options))]
        with open(said, "w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ
            )
        server = Server(process, http, grpc, said)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            if process.poll() is None:
                try:
                    server.stop()
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise RuntimeError(f"the server did not stop: {said.read_text()}") from None


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while "Ctrl-C stops it" not in server.said.read_text():
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start: {server.said.read_text()}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Memory:
    """Within its block, samples the memory of a server's processes: `samples` of (seconds, bytes in all,
    bytes of the replicas). What processes share is divided among them (Linux's Pss)."""

    def __init__(self, server: Server, every: float = 1.0):
        self._server, self._every = server, every
        self.samples: list[tuple[float, int, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Memory:
        self._begin = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(self._every):
            everyone, replicas = 0, 0
            for pid, line in self._server.processes().items():
                size = _pss(pid)
                everyone += size
                replicas += size if line.startswith("ray::ServeReplica") else 0
            if everyone:
                self.samples.append((time.monotonic() - self._begin, everyone, replicas))


def sorted_thirds(values: Sequence[float]) -> list[float]:
    """Medians of the first, the middle and the last third."""
    third = max(1, len(values) // 3)
    parts = values[:third], values[third : 2 * third] or values, values[-third:]
    return [sorted(part)[len(part) // 2] for part in parts]


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # it ended
        pass
    return 0
