"""Ctrl-C and SIGTERM as a wish to end early, with what there is."""

from __future__ import annotations

import signal
import threading
from types import TracebackType


class Interrupt:
    """Within its block, the first SIGINT or SIGTERM only sets `asked`; a second one is a KeyboardInterrupt.

    Enter it after the engines are loaded: Paddle takes SIGTERM for itself when it is imported. In a thread
    other than the main one it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None: whoever held it was not Python, and cannot be given it back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt("interrupted twice, so there is no report")
        self.asked = True
