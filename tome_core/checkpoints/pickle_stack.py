"""What a pickle's machine works with: its stack, its bytes, and the few kinds of object that are ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from tome_core.checkpoints import limits
from tome_core.checkpoints.limits import damaged, unsafe


@dataclass(frozen=True, eq=False)
class Global:
    """A name on the allow-list. `make(args)` builds our stand-in; without it the name cannot be called."""

    name: str
    make: Callable[[tuple], object] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """Long text or bytes, left in the file: `length` bytes at `start` of `file`."""

    file: BinaryIO
    start: int
    length: int
    text: bool


class Placeholder:
    """Stands for something harmless whose contents nobody needs: a Namespace, a path, a numpy scalar."""

    __slots__ = ()

    def build(self, state: object) -> None:
        """Ignored."""


class _Mark:
    __slots__ = ()


MARK = _Mark()


class Stack:
    """The stack of a machine, and bounded reading of its program from where `file` stands up to `end`."""

    def __init__(self, file: BinaryIO, end: int):
        self._file, self._end = file, end
        self._stack: list = []
        self._short_text = 0

    # -- reading ---------------------------------------------------------------------------------------------

    def _take(self, n: int) -> bytes:
        data = self._file.read(n)
        if len(data) != n:
            raise damaged("the pickle ends early")
        return data

    def _length(self, size: int) -> int:
        n = int.from_bytes(self._take(size), "little")
        if n > self._end - self._file.tell():
            raise damaged(f"the pickle claims {n} bytes that the file does not have")
        return n

    def _line(self) -> str:
        line = self._file.readline(limits.MAX_LINE + 1)
        if not line.endswith(b"\n"):
            raise damaged("the pickle has a line that does not end")
        return line[:-1].decode("utf-8")

    def _data(self, size: int, text: bool) -> None:
        n = self._length(size)
        if n > limits.MAX_KEY:
            start = self._file.tell()
            self._file.seek(start + n)
            self._stack.append(Run(self._file, start, n, text))
            return
        self._short_text += n
        if self._short_text > limits.MAX_SHORT_TEXT:
            raise unsafe("the pickle holds too much text for weights")
        data = self._take(n)
        self._stack.append(data.decode("utf-8") if text else data)

    # -- the stack -------------------------------------------------------------------------------------------

    def _pop(self) -> object:
        if not self._stack or self._stack[-1] is MARK:
            raise damaged("the pickle takes more than it put down")
        return self._stack.pop()

    def _pop_to_mark(self) -> list:
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is MARK:
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise damaged("the pickle takes more than it put down")

    def _top(self, kind: type) -> object:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise unsafe(f"the pickle fills something that is not a plain {kind.__name__}")
        return self._stack[-1]
