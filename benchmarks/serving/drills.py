"""What must not cost a client anything: a replica that is killed, and a server that is told to stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.clients import Questions
from benchmarks.serving.load import Load, Record
from benchmarks.serving.server import Server

RETRY_SECONDS = 1.0  # what the server says in Retry-After
_BACK_SECONDS = 60


@dataclass(frozen=True)
class Killed:
    """record: of clients that ask once more after a second. back: seconds until a new replica was there."""

    record: Record
    back: float


def kill_a_replica(
    server: Server, questions: Questions, clients: int, seconds: float, protocols: Sequence[str]
) -> Killed:
    """Under load, after a third of `seconds`, SIGKILL to a replica; goes on for the rest once there is
    another.

    Raises RuntimeError if none comes.
    """
    with Load(server, questions, clients, protocols, retry=RETRY_SECONDS) as load:
        load.go()
        time.sleep(seconds / 3)
        before = server.replicas()
        os.kill(before[0], signal.SIGKILL)
        start = time.monotonic()
        while len(set(server.replicas()) - {before[0]}) < len(before):
            if time.monotonic() - start > _BACK_SECONDS:
                raise RuntimeError("no replica came in place of the one that was killed")
            time.sleep(0.1)
        back = time.monotonic() - start
        time.sleep(2 * seconds / 3)
        load.pause()
    return Killed(load.record, back)


@dataclass(frozen=True)
class Stopped:
    """record: `answered` all in all, `refused` clients turned away, `lost` answers that never came. after:
    answers that came after the signal. status: the server's exit status; seconds: from the signal to its
    end."""

    record: Record
    after: int
    status: int
    seconds: float


def terminate(
    server: Server, questions: Questions, clients: int, seconds: float, protocols: Sequence[str]
) -> Stopped:
    """SIGTERM under load, after `seconds`. Clients go on until they are told that the server stops."""
    with Load(server, questions, clients, protocols, stop_when_refused=True) as load:
        load.go()
        time.sleep(seconds)
        start, signalled = time.monotonic(), time.perf_counter()
        status = server.stop()
        took = time.monotonic() - start
        load.wait()
    return Stopped(load.record, load.record.between(signalled, float("inf")), status, took)
