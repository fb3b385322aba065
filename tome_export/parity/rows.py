"""A row of a batch must be what its input gives alone, whatever its place and its neighbours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tome_export.parity.figures import compare
from tome_export.parity.following import Run
from tome_export.parity.result import Finding
from tome_export.parity.stages import largest, outputs_last, similarity_error, where


def wrong_row(
    names: Sequence[str], batch: Run, alone: Mapping[str, Run], close: Collection[str], limit: float
) -> list[Finding]:
    """The first row that differs, by the first tensor in which it does; an empty list if there is none.

    names: the inputs of the batch, in order. alone: each input's outputs and tensors in a batch of its own.
    close: inputs where a decision hangs on rounding; these are followed as far as the same tokens merge.
    """
    for row, name in enumerate(names):
        same = True
        for tensor in sorted(batch, key=outputs_last):
            index, part = where(tensor)
            found, wanted = batch[tensor][row : row + 1], alone[name][tensor]
            if part == "label" and name in close and not np.array_equal(found, wanted):
                same = False
            if not same:
                break
            error = similarity_error(wanted, found) if part == "scores" else largest(wanted, found)
            if error > limit:
                what = (
                    f"{_which(row, names)} differs by {error:.1e} from the input alone, first in its {part}"
                )
                return [Finding("batch", index, name, what)]
    return []


def wrong_logits(
    names: Sequence[str],
    logits: np.ndarray,
    alone: Mapping[str, np.ndarray],
    close: Collection[str],
    limit: float,
) -> list[Finding]:
    """As `wrong_row`, from the logits alone, which is all that a shipped graph gives."""
    for row, name in enumerate(names):
        error = compare(logits[row : row + 1], alone[name]).max_rel
        if error > limit and name not in close:
            what = f"{_which(row, names)} differs by {error:.1e} of the range from the input alone"
            return [Finding("batch", None, name, what)]
    return []


def _which(row: int, names: Sequence[str]) -> str:
    others = "different inputs" if len(set(names)) > 1 else "copies"
    return f"row {row} of a batch of {len(names)} {others}"
