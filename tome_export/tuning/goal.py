"""What is asked of a schedule: a speed-up, or how much it must agree; and the schedule that does it best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tome_export.errors import RequestError
from tome_export.tuning.costs import Costs
from tome_export.tuning.score import Score, Scorer
from tome_export.tuning.search import search
from tome_export.tuning.shapes import Fit, Shape, constant, decreasing, fitted, starting_shapes

_FASTER = 1.03  # how much more speed is tried for once a schedule agrees enough
_HALVINGS = 6
BASELINES = {"constant": constant, "decreasing": decreasing}
"""Shapes by depth, that a found schedule is compared with."""


@dataclass(frozen=True)
class Goal:
    """One of: speedup, over r = 0; or agreement, a share from 0 to 1 (of right answers, if labels are
    known)."""

    speedup: float | None = None
    agreement: float | None = None

    def __post_init__(self) -> None:
        if (self.speedup is None) == (self.agreement is None):
            raise RequestError("ask for a speed-up or for an agreement, one of them: --speedup 2.0")
        if self.speedup is not None and not 1 < self.speedup < math.inf:
            raise RequestError(f"a speed-up is above 1, such as 2.0, not {self.speedup:g}")
        if self.agreement is not None and not 0 < self.agreement <= 1:
            raise RequestError(
                f"a required share is above 0 and at most 1, such as 0.99, not {self.agreement:g}"
            )


def fit_at(costs: Costs, speedup: float) -> Fit:
    """Shape -> the schedule of this shape that is just as fast as that."""
    return lambda shape: fitted(shape, costs.setting.frame, costs.cost, 1 / speedup)


def best_at_speedup(
    costs: Costs,
    scorer: Scorer,
    speedup: float,
    first: list[Shape],
    seed: int,
    more: Callable[[Score], bool],
) -> tuple[Score, bool]:
    """The schedule that loses least at this speed-up, and whether the search came to its end.

    Raises RequestError if merging cannot be that fast.
    """
    depth = costs.setting.depth
    found = search(fit_at(costs, speedup), scorer.score, [*first, *starting_shapes(depth)], seed, more)
    if found.best is None:
        raise RequestError(
            f"a speed-up of {speedup:g}x is out of reach: merging makes this model at most "
            f"{fastest_possible(costs):.2f}x as fast here; ask for less, or for larger batches (--batch)"
        )
    return found.best, found.complete


def fastest_possible(costs: Costs) -> float:
    """The largest speed-up of the shapes that a search begins with, at any scale."""
    frame = costs.setting.frame
    scales = [2 ** (step / 4) for step in range(-40, 41)]
    return max(
        costs.speedup(frame.schedule([min(frame.tokens, round(scale * each)) for each in shape]))
        for shape in starting_shapes(frame.depth)
        for scale in scales
    )


def fastest_at_agreement(
    costs: Costs, scorer: Scorer, share: float, seed: int, more: Callable[[Score], bool]
) -> tuple[list[Score], dict[str, float], bool]:
    """Schedules that agree enough, each faster than the one before; how fast the constant and the decreasing
    one can be; whether the search came to its end.

    Raises RequestError if even little merging agrees too seldom.
    """
    frame = costs.setting.frame
    climbed: list[Score] = []
    reached: dict[str, float] = {}
    for name, shape in BASELINES.items():
        good = _fastest_of(shape(frame.depth), costs, scorer, share, more)
        reached[name] = costs.speedup(good.schedule) if good else 1.0
        climbed += [good] if good and reached[name] > 1 else []
    climbed.sort(key=lambda score: costs.speedup(score.schedule))
    speedup = max(costs.speedup(climbed[-1].schedule) if climbed else 1.0, 1.0)
    complete = False
    limit = fastest_possible(costs)
    while not complete and (not climbed or more(climbed[-1])):
        wanted = speedup * _FASTER
        if wanted > limit:
            complete = True
            break
        first = [list(climbed[-1].schedule.r)] if climbed else []
        best, complete = best_at_speedup(
            costs,
            scorer,
            wanted,
            first,
            seed,
            lambda best: more(best) and best.share < share,
        )
        if best.share < share:
            break
        complete = False
        climbed.append(best)
        speedup = costs.speedup(best.schedule)
    if not climbed:
        raise RequestError(
            f"nothing that was tried is faster than r = 0 and right on {share:.2%} of the pictures; "
            "ask for less"
        )
    return climbed, reached, complete


def _fastest_of(
    shape: Shape, costs: Costs, scorer: Scorer, share: float, more: Callable[[Score], bool]
) -> Score | None:
    """The fastest schedule of this shape that agrees enough, by halving; None if even a little does not."""
    low, high = 1.0, fastest_possible(costs)
    found: Score | None = None
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if found is not None and not more(found):
            break
        schedule = fit_at(costs, middle)(shape)
        score = scorer.score(schedule) if schedule is not None else None
        if score is not None and score.share >= share:
            low, found = middle, score
        else:
            high = middle
    return found
