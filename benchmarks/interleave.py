"""Compare running times on a noisy machine: contenders take turns, and each round gives one ratio.

A slow spell then hits all contenders of a round alike. Each turn begins with a run that is not timed: the
threads of the engine before still spin for some milliseconds, and caches hold its weights. What is reported
is the median of the rounds' ratios and their quartiles; the milliseconds are for orientation only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """milliseconds: median. ratio: median of baseline time / own time, with its quartiles."""

    milliseconds: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.milliseconds:8.1f} ms   {self.ratio:5.2f}x  ({self.low:.2f} to {self.high:.2f})"


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 3
) -> dict[str, Timing]:
    """Time each contender once a round, in turns, over `repeats` runs; the first is the baseline."""
    for run in contenders.values():
        run()
        run()
    seconds = np.empty((rounds, len(contenders)))
    for row in seconds:
        for column, run in enumerate(contenders.values()):
            run()
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            row[column] = (time.perf_counter() - start) / repeats
    ratios = seconds[:, :1] / seconds
    low, middle, high = np.percentile(ratios, (25, 50, 75), axis=0)
    typical = np.median(seconds, axis=0) * 1e3
    return {name: Timing(typical[i], middle[i], low[i], high[i]) for i, name in enumerate(contenders)}
