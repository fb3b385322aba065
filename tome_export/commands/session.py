"""What commands share: common options, quiet third parties, errors as one line and an exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tome_core.errors import TomeError
from tome_export.quiet import Quiet, quiet

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and third parties' output.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An exported bundle.", show_default=False)]


@contextmanager
def session(debug: bool) -> Iterator[Quiet]:
    """Run a command's work: third parties are silent, an error is one line and an exit status."""
    error: BaseException | None = None
    with quiet(debug) as opened:
        try:
            yield opened
        except (TomeError, MemoryError, OSError, KeyboardInterrupt) as caught:
            error = caught
        except (SystemExit, GeneratorExit):
            raise
        except Exception as caught:
            error = caught
        if error is not None and debug:
            traceback.print_exception(error)
    if error is not None:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1))


def _one_line(error: BaseException) -> str:
    if isinstance(error, TomeError):
        return " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted; nothing was written"
    if isinstance(error, MemoryError):
        return "out of memory; nothing was written"
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text} (run with --debug for the traceback)"
