"""Compare running times on a noisy machine: contenders take turns, and each round gives one ratio.

A slow spell then hits all contenders of a round alike. Each turn begins with a run that is not timed: the
threads of the engine before still spin for some milliseconds, and caches hold its weights. That first run may
take 40 % longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

REPEATS = 3
"""Timed runs in a turn."""
_FEWEST = 3  # rounds, however slow


def take_turns(
    contenders: Sequence[Callable[[], object]],
    rounds: int,
    seconds: float | None = None,
    repeats: int = REPEATS,
    after_round: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Seconds of every timed run, float [rounds, contenders, repeats].

    rounds: how many; with `seconds`, at most so many: it stops when they have passed, after three rounds at
    least.
    """
    for run in contenders:
        run()
        run()
    taken: list[list[list[float]]] = []
    start = time.perf_counter()
    while len(taken) < rounds:
        if seconds is not None and len(taken) >= _FEWEST and time.perf_counter() - start > seconds:
            break
        taken.append([_turn(run, repeats) for run in contenders])
        after_round(len(taken))
    return np.array(taken)


def _turn(run: Callable[[], object], repeats: int) -> list[float]:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the baseline: median over the rounds, and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def ratio(own: np.ndarray, baseline: np.ndarray) -> Ratio:
    """own, baseline: seconds, float [rounds, repeats], of the same rounds. A round's ratio is that of its
    medians."""
    low, middle, high = np.percentile(np.median(baseline, 1) / np.median(own, 1), (25, 50, 75))
    return Ratio(float(middle), float(low), float(high))


@dataclass(frozen=True)
class Timing:
    """milliseconds: median. ratio: of baseline time and own time."""

    milliseconds: float
    ratio: Ratio

    def __str__(self) -> str:
        return f"{self.milliseconds:8.1f} ms   {self.ratio}"


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, repeats: int = REPEATS
) -> dict[str, Timing]:
    """Time each contender once a round, in turns; the first is the baseline."""
    seconds = take_turns(list(contenders.values()), rounds, repeats=repeats)
    return {
        name: Timing(float(np.median(seconds[:, i])) * 1e3, ratio(seconds[:, i], seconds[:, 0]))
        for i, name in enumerate(contenders)
    }
