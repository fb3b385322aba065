"""What the command says at the end."""

from __future__ import annotations

import shlex
from pathlib import Path

from tome_export.console import size, table
from tome_export.predict_many import Outcome


def as_text(outcome: Outcome, folder: Path) -> str:
    """folder: the bundle's, as it was given."""
    rows = [("model", f"{folder}, {outcome.runtime} {outcome.precision}"), ("images", f"{outcome.images}")]
    if outcome.before:
        rows.append(("of these before", f"{outcome.before}"))
    rows.append(("could not be read", f"{outcome.errors}"))
    if outcome.ignored:
        rows.append(("files ignored", f"{outcome.ignored}, by their ending"))
    if outcome.done > outcome.before:
        rows.append(("speed of everything", f"{outcome.images_per_second:.1f} images/s"))
        rows.append(("time", f"{outcome.seconds:.1f} s"))
    text = table(rows)
    if outcome.first:
        text += "\n\nerrors\n" + "\n".join(f"  {path}: {reason}" for path, reason in outcome.first)
        if outcome.errors > len(outcome.first):
            text += f"\n  and {outcome.errors - len(outcome.first)} more; the column `error` has them all"
    written = table([(str(outcome.out), size(outcome.out.stat().st_size))])
    return f"{text}\n\n{written}\n\nnext\n  python -c {_quoted(outcome.out)}"


def _quoted(out: Path) -> str:
    """Python that shows the file, for a shell."""
    code = f"import pandas; print(pandas.read_parquet({str(out)!r}))"
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
