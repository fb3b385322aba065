"""Keep third parties' chatter off the user's terminal.

Paddle's C++ log, its warning at import, the converter's prints and ONNX Runtime's warnings reach the terminal
by different roads, some below Python. So `quiet` redirects file descriptors 1 and 2 themselves, for the whole
process: it belongs in a command line's main thread, not in a library call or a server.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_KEPT_BYTES = 1 << 20


class Quiet:
    """What `quiet` yields. `stdout` and `stderr`: text streams that still reach the user, for progress and
    results, as long as the block lasts. `text()`: what was kept from the user since this `quiet` began; it
    outlives the block."""

    def __init__(self, stdout: TextIO, stderr: TextIO, sink: int | None):
        self.stdout, self.stderr = stdout, stderr
        self._sink = sink
        self._start = 0 if sink is None else os.fstat(sink).st_size
        self._text = ""

    def text(self) -> str:
        """Captured output so far (its last MiB); "" when nothing is captured because of `debug`."""
        if self._sink is not None:
            _flush()
            end = os.fstat(self._sink).st_size
            start = max(self._start, end - _KEPT_BYTES)
            self._text = _read_at(self._sink, start, end - start).decode("utf-8", "replace")
        return self._text

    def _finish(self) -> None:
        self.text()
        self._sink = None


class _Switch:
    """A stand-in for a `sys.stdout` that is not on a descriptor (pytest, a notebook): the capture file, and
    after `quiet` the original, since a logging handler made meanwhile may keep it for good."""

    def __init__(self, target: Any):
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


_active: Quiet | None = None


@contextlib.contextmanager
def quiet(debug: bool = False) -> Iterator[Quiet]:
    """Capture everything written to stdout and stderr, by Python or below it, while the block runs.

    debug: let everything through. Nested uses join the outer one, its `debug` too, with a `text()` of their
    own. Python warnings are captured as text and never raised as errors meanwhile.
    """
    global _active
    if _active is not None:
        inner = Quiet(_active.stdout, _active.stderr, _active._sink)
        try:
            yield inner
        finally:
            inner._finish()
        return
    with contextlib.ExitStack() as stack:
        # Left in reverse order: the text is read before the descriptors and streams are put back.
        outer = _passthrough() if debug else _capture(stack)
        stack.callback(outer._finish)
        if not debug:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("default")
            warnings.showwarning = _show_warning  # someone may have put a recorder there
        _active = outer
        try:
            yield outer
        finally:
            _active = None


def _passthrough() -> Quiet:
    return Quiet(sys.stdout or _null(), sys.stderr or _null(), None)


def _null() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _capture(stack: contextlib.ExitStack) -> Quiet:
    with _sink_file() as sink:
        sink_fd = _dup(sink.fileno())  # above 2: the file itself may have been given a closed 1 or 2
    stack.callback(os.close, sink_fd)
    _flush()
    shown = [_redirect(stack, name, fd, sink_fd) for name, fd in (("stdout", 1), ("stderr", 2))]
    stack.callback(_flush)  # before the descriptors go back, or buffered chatter would leak afterwards
    return Quiet(shown[0], shown[1], sink_fd)


def _sink_file() -> io.FileIO:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError:  # nowhere to write: stay quiet, and have nothing to show
        return open(os.devnull, "r+b", buffering=0)


def _redirect(stack: contextlib.ExitStack, name: str, fd: int, sink_fd: int) -> TextIO:
    """Point `fd` and `sys.<name>` at the sink until the stack unwinds; returns a stream on the old place."""
    try:
        saved = _dup(fd)
    except OSError:  # closed, as under some daemons
        saved = None
    os.dup2(sink_fd, fd)
    stack.callback(_restore, saved, fd)

    stream = getattr(sys, name)
    try:
        on_fd = stream is not None and stream.fileno() == fd
    except (OSError, ValueError, AttributeError):
        on_fd = False
    if on_fd:
        if saved is None:
            return stack.enter_context(_null())
        return stack.enter_context(_text(_dup(saved), stream.encoding))
    switch = _Switch(stack.enter_context(_text(_dup(sink_fd), "utf-8")))
    setattr(sys, name, switch)
    original = stream if stream is not None else stack.enter_context(_null())
    stack.callback(_put_back, switch, name, stream, original)
    return original


def _show_warning(
    message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    stream = file or sys.stderr
    if stream is not None:
        stream.write(warnings.formatwarning(message, category, filename, lineno, line))


def _text(fd: int, encoding: str) -> TextIO:
    return open(fd, "w", encoding=encoding, errors="backslashreplace", buffering=1)


def _restore(saved: int | None, fd: int) -> None:
    if saved is None:
        os.close(fd)
    else:
        os.dup2(saved, fd)
        os.close(saved)


def _put_back(switch: _Switch, name: str, stream: TextIO | None, original: TextIO) -> None:
    switch.target = original
    if getattr(sys, name) is switch:
        setattr(sys, name, stream)


def _dup(fd: int) -> int:
    return os.dup(fd) if fcntl is None else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _flush() -> None:
    """Python's buffers, then C's (which C++ streams share): the converter prints through both."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)


def _read_at(fd: int, start: int, count: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, count, start)
    os.lseek(fd, start, os.SEEK_SET)
    data = os.read(fd, count)
    os.lseek(fd, 0, os.SEEK_END)  # the offset is shared with every writer
    return data
