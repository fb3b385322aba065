"""Clients that ask wrongly, and what each must be told. None may harm the others."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.serving.clients import Questions
from benchmarks.serving.server import Server

_JSON = "application/json"
_WAIT_SECONDS = 90


@dataclass(frozen=True)
class Enemies:
    """What they know of the server. body_mb, body_seconds: its limits, as given on its command line."""

    server: Server
    questions: Questions
    body_mb: int
    body_seconds: float

    def all(self) -> dict[str, tuple[Callable[[], str], str]]:
        """Name -> (what does it and returns what it was told, what it must be told)."""
        infer, predict = f"/v2/models/{self.questions.model}/infer", "/predict"
        shape = list(self.questions.images[:1].shape)
        jpeg = self.questions.jpegs[0]
        post = self._post
        return {
            "malformed JSON": (lambda: post(infer, b'{"inputs": [', _JSON), "400"),
            "JSON that is no request": (lambda: post(infer, b"[1, 2]", _JSON), "400"),
            "wrong shape": (lambda: post(infer, _request([1, 3, 5, 5], "FP32"), _JSON), "400"),
            "wrong type": (lambda: post(infer, _request(shape, "INT64"), _JSON), "400"),
            "too few values": (lambda: post(infer, _request(shape, "FP32"), _JSON), "400"),
            "truncated JPEG": (lambda: post(predict, jpeg[: len(jpeg) // 2], "image/jpeg"), "400"),
            "no picture": (lambda: post(predict, b"not a picture" * 50, "image/jpeg"), "400"),
            "unknown model": (lambda: post("/v2/models/nobody/infer", b"{}", _JSON), "404"),
            "oversized body": (lambda: post(predict, b"x" * ((self.body_mb << 20) + 1), "image/jpeg"), "413"),
            "slow client": (self._slow, "408"),
            "disconnect in the head": (lambda: self._leave(b"POST /predict HTTP/1.1\r\nHo"), "gone"),
            "disconnect in the body": (lambda: self._leave(_head(len(jpeg)) + jpeg[:500]), "gone"),
            "disconnect while it is answered": (lambda: self._leave(_head(len(jpeg)) + jpeg), "gone"),
            "wrong shape over gRPC": (
                lambda: self._grpc(np.zeros((1, 3, 5, 5), np.float32)),
                "INVALID_ARGUMENT",
            ),
            "oversized message over gRPC": (self._large_message, "RESOURCE_EXHAUSTED"),
        }

    def _post(self, path: str, body: bytes, kind: str) -> str:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        with self._connected() as connection:
            try:
                connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
            except (BrokenPipeError, ConnectionResetError):  # refused before it was all sent: read why
                pass
            return _status(connection)

    def _slow(self) -> str:
        with self._connected() as connection:
            connection.sendall(_head(1000) + b"x" * 10)
            return _status(connection)

    def _leave(self, content: bytes) -> str:
        with self._connected() as connection:
            connection.sendall(content)
        return "gone"

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.http), timeout=_WAIT_SECONDS)

    def _large_message(self) -> str:
        rows = (2 * self.body_mb << 20) // self.questions.images[0].nbytes + 1
        return self._grpc(np.zeros((rows, *self.questions.images.shape[1:]), np.float32))

    def _grpc(self, array: np.ndarray) -> str:
        import tritonclient.grpc as library

        client = library.InferenceServerClient(f"127.0.0.1:{self.server.grpc}")
        try:
            tensor = library.InferInput("image", list(array.shape), "FP32")
            tensor.set_data_from_numpy(array)
            client.infer(self.questions.model, [tensor], client_timeout=_WAIT_SECONDS)
        except library.InferenceServerException as error:
            return str(error.status()).removeprefix("StatusCode.")
        finally:
            client.close()
        return "OK"


@dataclass
class Told:
    """right: how often each fault was told what it must be. wrong: what was said instead."""

    right: Counter = field(default_factory=Counter)
    wrong: Counter = field(default_factory=Counter)


class Attack:
    """Within its block, `threads` enemies go round all faults, each from another one on. `told` is what
    came."""

    def __init__(self, enemies: Enemies, threads: int = 2, pause: float = 0.05):
        self.told = Told()
        self._faults = list(enemies.all().items())
        self._pause, self._ended, self._lock = pause, threading.Event(), threading.Lock()
        step = max(1, len(self._faults) // threads)
        self._threads = [threading.Thread(target=self._run, args=(i * step,)) for i in range(threads)]

    def __enter__(self) -> Attack:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, start: int) -> None:
        for name, (attack, expected) in itertools.islice(itertools.cycle(self._faults), start, None):
            try:
                found = attack()
            except OSError as error:
                found = type(error).__name__
            with self._lock:
                if found == expected:
                    self.told.right[name] += 1
                else:
                    self.told.wrong[f"{name}: {found} in place of {expected}"] += 1
            if self._ended.wait(self._pause):
                return


def each_once(enemies: Enemies) -> dict[str, tuple[str, str]]:
    """Name -> (what it was told, what it must be told)."""
    return {name: (attack(), expected) for name, (attack, expected) in enemies.all().items()}


def _head(length: int) -> bytes:
    lines = ("POST /predict HTTP/1.1", "Host: x", "Content-Type: image/jpeg", f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _request(shape: list[int], datatype: str) -> bytes:
    entry = {"name": "image", "datatype": datatype, "shape": shape, "data": [0, 1, 2]}
    return json.dumps({"inputs": [entry]}).encode()


def _status(connection: socket.socket) -> str:
    """The status of the answer; "closed" if the connection ends without one."""
    found = b""
    while b"\r\n" not in found:
        part = connection.recv(4096)
        if not part:
            return "closed"
        found += part
    return found.split(b" ", 2)[1].decode()
