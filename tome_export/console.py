"""What the command line shows: aligned, sparse, the same on a terminal and in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from tome_export.steps import Steps

_SECONDS_BETWEEN_NOTES = 20.0


class ConsoleSteps(Steps):
    """Shows a spinner for the step in progress on a terminal, and one line for each finished one."""

    def __init__(self, stream: TextIO, titles: dict[str, str]) -> None:
        super().__init__()
        self._console = Console(file=stream, highlight=False)
        self._titles = titles
        self._live: Live | None = None
        self._said = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        title = self._titles.get(name, name)
        start = time.perf_counter()
        with super().__call__(name):
            self._said = start
            if self._console.is_terminal:
                with self._spinner(title) as self._live:
                    yield
            else:
                yield
        seconds = time.perf_counter() - start
        print(f"  {title:<44}{seconds:6.1f} s", file=self._console.file, flush=True)

    def note(self, text: str) -> None:
        """Beside the spinner; on what is not a terminal, a line every twenty seconds."""
        now = time.perf_counter()
        if self._console.is_terminal:
            if self._live is not None:
                self._live.get_renderable().update(text=f"{text} ...")
        elif now - self._said >= _SECONDS_BETWEEN_NOTES:
            self._said = now
            print(f"  {text}", file=self._console.file, flush=True)

    def _spinner(self, title: str) -> Live:
        # Not Console.status: it would take over sys.stderr and show third parties' warnings.
        return Live(
            Spinner("dots", f"{title} ..."),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )


def table(rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Rows as aligned columns, two spaces apart, indented by two; columns in `right` are right-aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(padded).rstrip())
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes in the unit that fits: "12 B", "768.6 kB", "348.6 MB", "2.53 GB"."""
    for unit, factor, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= factor:
            return f"{count / factor:.{digits}f} {unit}"
    return f"{count} B"


def giga(count: int) -> str:
    """Multiply-adds in billions: "17.56 G"."""
    return f"{count / 1e9:.2f} G"
