"""Lists of r that cost what was asked: a shape over the blocks, scaled until the cost is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tome_core.schedule import Schedule, make_schedule

Shape = Sequence[float]
"""How much each block merges compared with the others; any non-negative numbers."""
Fit = Callable[[Shape], "Schedule | None"]
_HALVINGS = 30
_NOTHING = 1e-3  # of the largest part: less is not scaled up until it merges all it can


@dataclass(frozen=True)
class Frame:
    """What a schedule is for: blocks, tokens entering the first, and how many of them are special."""

    depth: int
    tokens: int
    protected: int

    def schedule(self, r: Sequence[int] | int) -> Schedule:
        return make_schedule(
            list(r) if isinstance(r, Sequence) else r, self.depth, self.tokens, self.protected
        )


def constant(depth: int) -> Shape:
    return [1.0] * depth


def decreasing(depth: int) -> Shape:
    """As `--inflect -1`: linear, to 0 in the last block (paper, section 4.1)."""
    return [float(depth - 1 - block) for block in range(depth)] if depth > 1 else [1.0]


def starting_shapes(depth: int) -> list[Shape]:
    """Where a search begins: constant and decreasing first, then others that differ from both."""
    last = max(depth - 1, 1)
    ramp = [1 - 2 * block / last for block in range(depth)]  # 1 to -1
    middle = [1 - abs(each) for each in ramp]
    return [
        constant(depth),
        decreasing(depth),
        [1 + each / 2 for each in ramp],
        [1 - each / 2 for each in ramp],
        [1 - each for each in ramp],
        [0.25 + each for each in middle],
        [(last - block) ** 2.0 for block in range(depth)] if depth > 1 else [1.0],
        [1.0] * (depth - 1) + [0.0] if depth > 1 else [1.0],
        [0.0] + [1.0] * (depth - 1) if depth > 1 else [1.0],
    ]


def scaled(shape: Shape, scale: float, frame: Frame) -> Schedule:
    """The schedule nearest to scale * shape: sums over the first blocks are rounded, so that small parts of a
    token are spread over the blocks and not lost. A block whose shape is 0 merges nothing."""
    r, wanted, given = [], 0.0, 0
    for each in shape:
        wanted += scale * each
        r.append(round(wanted) - given)
        given = round(wanted)
    return frame.schedule(r)


def fitted(shape: Shape, frame: Frame, cost: Callable[[Schedule], float], most: float) -> Schedule | None:
    """The schedule of this shape that merges least and costs `most` or less; None if none is as cheap."""
    most_of_all = max(shape)
    if most_of_all <= 0:
        return None
    low, high = 0.0, frame.tokens / min(each for each in shape if each > _NOTHING * most_of_all)
    best = scaled(shape, high, frame)
    if cost(best) > most:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        schedule = scaled(shape, middle, frame)
        if cost(schedule) <= most:
            high, best = middle, schedule
        else:
            low = middle
    return best
