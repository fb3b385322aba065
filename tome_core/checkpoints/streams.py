"""Read-only streams over part of an open file. They read on demand, so describing data costs no memory."""

import codecs
from collections.abc import Sequence
from typing import BinaryIO

from tome_core.checkpoints.limits import CHUNK


class _Stream:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Nothing to release: the file stays open until the whole checkpoint is read."""


class Window(_Stream):
    """Bytes [start, start + length) of `file`."""

    def __init__(self, file: BinaryIO, start: int, length: int):
        self._file, self._position, self._end = file, start, start + length

    def read(self, n: int) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(min(n, self._end - self._position))
        self._position += len(data)
        return data


class Latin1Window(_Stream):
    """UTF-8 text in `file`, encoded to latin-1: how protocol 2 pickles of Python 3 write bytes."""

    def __init__(self, file: BinaryIO, start: int, length: int):
        self._utf8 = Window(file, start, length)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ready = memoryview(b"")

    def read(self, n: int) -> bytes:
        while not self._ready:
            data = self._utf8.read(CHUNK)
            self._ready = memoryview(self._decoder.decode(data, final=not data).encode("latin-1"))
            if not data:
                break
        data, self._ready = bytes(self._ready[:n]), self._ready[n:]
        return data


class Joined(_Stream):
    """Several streams, one after the other; each is opened when the one before is used up."""

    def __init__(self, openers: Sequence):
        self._openers, self._current = list(openers), None

    def read(self, n: int) -> bytes:
        while True:
            if self._current is None:
                if not self._openers:
                    return b""
                self._current = self._openers.pop(0)()
            data = self._current.read(n)
            if data or n == 0:
                return data
            self._current.close()
            self._current = None
