"""Ray: started for one command and gone with it, or a running cluster joined. Quiet, and without
statistics."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tome_export.errors import MissingExtraError, RequestError, WorkerError
from tome_export.offline.table import INSTALL
from tome_export.runtimes.base import first_line

_PREFIX = "tome-export-ray-"
_LONGEST_PARENT = 16  # Ray puts sockets deep below it, whose whole paths may have 107 bytes
_QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}


@dataclass(frozen=True)
class Layout:
    """How many processes of which size. actors: models; threads: of each; workers: tasks that read pictures.
    actor_cpus, actor_gpus: what Ray is to set aside for an actor."""

    actors: int
    threads: int
    workers: int
    actor_cpus: int
    actor_gpus: int


def load_ray(address: str = "") -> Any:
    """The ray package with ray.data. Unless it is for a running cluster, Ray's processes will know one
    another by a random token, which its library reads when it is loaded. Raises MissingExtraError."""
    if not address and "ray" not in sys.modules:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        what = (
            "is not installed" if getattr(error, "name", None) == "ray" else f"cannot be imported ({error})"
        )
        raise MissingExtraError(f"the ray package {what}: {INSTALL}") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """The ray module, connected to a running cluster. Raises RequestError, MissingExtraError."""
    ray = load_ray(address)
    try:
        ray.init(address=address, **_QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RequestError(f"no Ray cluster answers at {address} ({first_line(error)})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def started(plan: Layout, store: int, note: Path) -> Iterator[Any]:
    """The ray module, connected to a cluster of this machine's own with `store` bytes of shared memory. Its
    temporary folder is removed at the end; until then `note` has its path, so that what a killed run left is
    removed by the next. Raises WorkerError, MissingExtraError."""
    ray = load_ray()
    clear_scratch(note)
    parent = tempfile.gettempdir()
    scratch = tempfile.mkdtemp(prefix=_PREFIX, dir=parent if len(parent) <= _LONGEST_PARENT else "/tmp")
    with contextlib.ExitStack() as stack:
        stack.callback(clear_scratch, note)
        note.write_text(scratch, encoding="utf-8")
        stack.enter_context(_environment("OMP_NUM_THREADS", str(plan.threads)))
        stack.callback(ray.shutdown)  # also of a start that was interrupted
        try:
            ray.init(
                address="local",
                num_cpus=plan.actors + plan.workers + 1,  # one for what lists the shards
                num_gpus=plan.actors * plan.actor_gpus,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                object_store_memory=store,
                _temp_dir=scratch,
                **_QUIET,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise WorkerError(f"Ray did not start ({first_line(error)})") from None
        yield ray


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Ray's processes inherit it. (Ray would set it to the CPUs that it counts for each process.)"""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def clear_scratch(note: Path) -> None:
    """Remove the folder that `note` names, if it is one of ours, and the note."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        scratch = Path(note.read_text(encoding="utf-8"))
        if scratch.name.startswith(_PREFIX):
            shutil.rmtree(scratch, ignore_errors=True)
        note.unlink()


def layout_here(actors: int | None, threads: int | None, workers: int | None, cuda: bool) -> Layout:
    """What was asked for, and for the rest what suits this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    actors = actors or 1
    return Layout(actors, threads or max(1, cores // actors), workers or min(cores, 16), 1, int(cuda))


def layout_there(
    ray: Any, actors: int | None, threads: int | None, workers: int | None, cuda: bool
) -> Layout:
    """As `layout_here`, for the cluster that `ray` is connected to: a model on every machine, or GPU, with
    half of the CPUs of the smallest, and readers on the rest. Raises RequestError if it is too small."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    each = sum(int(node.get("GPU", 0)) for node in nodes) if cuda else len(nodes)
    actors = actors or max(1, each)
    threads = threads or max(1, min(filter(None, cores), default=2) // 2)
    left = sum(cores) - actors * threads - 1  # one for what lists the shards
    if left < 1:
        raise RequestError(
            f"the cluster has {sum(cores)} CPUs, too few for {actors} x {threads} threads and two to read; "
            "ask for fewer --actors or --threads"
        )
    return Layout(actors, threads, min(workers or left, left), threads, int(cuda))
