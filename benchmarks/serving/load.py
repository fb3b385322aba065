"""Many clients at once, each asking again as soon as it is answered, for as long as they are let."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.serving.clients import Questions, Refused, Wrong, open_client
from benchmarks.serving.server import Server


@dataclass
class Record:
    """answered: (protocol, moment of the answer, seconds it took). retried: asked once more, as the server
    said. lost: what went wrong, not to be excused; refused: turned away for good."""

    answered: list[tuple[str, float, float]] = field(default_factory=list)
    retried: int = 0
    refused: int = 0
    lost: Counter = field(default_factory=Counter)

    def seconds(self, protocol: str = "") -> np.ndarray:
        """Of the answers, by this protocol or all."""
        return np.array([took for name, _, took in self.answered if protocol in ("", name)])

    def between(self, begin: float, end: float) -> int:
        """How many answers came then."""
        return sum(begin <= moment < end for _, moment, _ in self.answered)


class Load:
    """Clients in threads. They ask between `go` and `pause`; leave the block to end them.

    protocols: of the clients, in turns. retry: whether a refused or failed request is asked once more, after
    `retry` seconds; None does not. stop_when_refused: a client ends then, as at a server that stops.
    """

    def __init__(
        self,
        server: Server,
        questions: Questions,
        clients: int,
        protocols: Sequence[str] = ("http", "grpc"),
        retry: float | None = None,
        stop_when_refused: bool = False,
    ):
        self.record = Record()
        self._server, self._questions = server, questions
        self._retry, self._stop_when_refused = retry, stop_when_refused
        self._may_ask, self._ended = threading.Event(), threading.Event()
        self._lock, self._busy = threading.Condition(), 0
        self._threads = [
            threading.Thread(target=self._run, args=(protocols[i % len(protocols)], i), daemon=True)
            for i in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._may_ask.set()
        self.wait()

    def go(self) -> None:
        self._may_ask.set()

    def pause(self) -> None:
        """Returns when every request is answered."""
        self._may_ask.clear()
        with self._lock:
            self._lock.wait_for(lambda: self._busy == 0)

    def ask_for(self, seconds: float) -> tuple[float, float]:
        """Go, and pause; the two moments between which all clients were at it."""
        self.go()
        begin = time.perf_counter()
        time.sleep(seconds)
        end = time.perf_counter()
        self.pause()
        return begin, end

    def wait(self) -> None:
        """Until all clients have ended."""
        for thread in self._threads:
            thread.join(timeout=120)
            if thread.is_alive():
                self._lose("a client did not end")

    def _run(self, protocol: str, number: int) -> None:
        client = open_client(protocol, self._questions, self._server.http, self._server.grpc)
        try:
            turn = number
            while True:
                self._may_ask.wait()
                with self._lock:
                    self._busy += 1
                try:
                    # After `pause` nobody may begin: it looks at `_busy` only once the event is cleared.
                    if self._ended.is_set():
                        return
                    if self._may_ask.is_set() and not self._ask(client, protocol, turn):
                        return
                finally:
                    with self._lock:
                        self._busy -= 1
                        self._lock.notify_all()
                turn += 1
        finally:
            client.close()

    def _ask(self, client, protocol: str, turn: int) -> bool:
        """Whether to go on."""
        index = turn % len(self._questions.images)
        for attempt in range(1 if self._retry is None else 2):
            start = time.perf_counter()
            try:
                client.ask(index)
            except Exception as error:
                if attempt == 0 and self._retry is not None and not isinstance(error, Wrong):
                    with self._lock:
                        self.record.retried += 1
                    time.sleep(self._retry)
                    continue
                if isinstance(error, Refused) and self._stop_when_refused:
                    with self._lock:
                        self.record.refused += 1
                    return False
                self._lose(f"{protocol}: {type(error).__name__}: {str(error)[:200]}")
                return True
            now = time.perf_counter()
            with self._lock:
                self.record.answered.append((protocol, now, now - start))
            return True
        return True

    def _lose(self, what: str) -> None:
        with self._lock:
            self.record.lost[what] += 1
