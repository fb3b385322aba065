"""Search a shape that loses least at a cost: well-known shapes first, then more here and less elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tome_core.schedule import Schedule
from tome_export.tuning.score import Score
from tome_export.tuning.shapes import Fit, Shape

_STEPS = (1.0, 0.5, 0.25, 0.12, 0.06)
"""By how much a block's part changes at first, and then: in means over the blocks."""


@dataclass(frozen=True)
class Found:
    """best: of what was tried, None if no shape costs so little. complete: nothing was left to try."""

    best: Score | None
    complete: bool


def search(
    fit: Fit,
    judge: Callable[[Schedule, Score | None], Score | None],
    shapes: Sequence[Shape],
    seed: int,
    more: Callable[[Score], bool],
) -> Found:
    """Change one block's part at a time, others giving or taking in proportion, and keep what loses less.

    fit: the schedule of a shape that costs as much as it may. judge: see `Scorer.score`. shapes: tried first.
    more: asked with the best so far, once there is one, whether to go on.
    """
    rng = np.random.default_rng(seed)
    tried: dict[tuple[int, ...], Score | None] = {}
    best: Score | None = None

    def consider(shape: Shape) -> bool:
        """Whether this is the new best."""
        nonlocal best
        schedule = fit(shape)
        if schedule is None or schedule.r in tried:
            return False
        score = tried[schedule.r] = judge(schedule, best)
        if score is None or (best is not None and score.loss >= best.loss):
            return False
        best = score
        return True

    for shape in shapes:
        if best is not None and not more(best):
            return Found(best, False)
        consider(shape)
    if best is None:
        return Found(None, True)
    depth = len(best.schedule.r)
    for step in _STEPS:
        better = True
        while better:
            better = False
            for move in rng.permutation(2 * depth):
                block, sign = move // 2, 1 if move % 2 else -1
                went_on = True
                while went_on:
                    if not more(best):
                        return Found(best, False)
                    went_on = consider(_moved(best.schedule.r, block, sign * step))
                    better |= went_on
    return Found(best, True)


def _moved(r: Sequence[int], block: int, step: float) -> Shape:
    shape = [float(each) for each in r]
    # At least what a rounding to whole tokens shows.
    change = np.sign(step) * max(abs(step) * sum(r) / len(r), 1.0)
    shape[block] = max(0.0, shape[block] + change)
    return shape
