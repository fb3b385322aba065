"""How far a command is with its images: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 20.0


class ProgressView:
    """Shows `advance`d images of `total` on `stream`, with speed and time left. On what is not a terminal:
    a line every twenty seconds, if `lines`. `title`: what is being done."""

    def __init__(self, stream: TextIO, lines: bool = True, title: str = "evaluate"):
        self._console = Console(file=stream, highlight=False)
        self._lines, self._title = lines, title
        self._bar: Progress | None = None

    def start(self, total: int, before: int = 0) -> None:
        """before: how many were decided earlier, which say nothing about the speed."""
        self._total, self._before, self._begin = total, before, time.monotonic()
        self._last_line = self._begin
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn(f"  {self._title}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("", total=total, completed=before, speed="")
            self._bar.start()

    def measure_from(self, done: int) -> None:
        """The speed is that from now on, with `done` images decided."""
        self._before, self._begin = done, time.monotonic()
        self._last_line = self._begin

    def advance(self, done: int) -> None:
        """`done` images of all are decided."""
        now = time.monotonic()
        rate = max(done - self._before, 1e-9) / max(now - self._begin, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, speed=f"{rate:.1f} images/s")
        elif self._lines and now - self._last_line >= _SECONDS_BETWEEN_LINES and done < self._total:
            self._last_line = now
            minutes, seconds = divmod(round((self._total - done) / rate), 60)
            text = f"  {done} of {self._total} images, {rate:.1f} images/s, {minutes}:{seconds:02d} left"
            print(text, file=self._console.file, flush=True)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
