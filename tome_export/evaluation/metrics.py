"""The statistics of an evaluation."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share, `right` of `count` (Wilson 1927). Needs count >= 1."""
    share, square = right / count, _Z95**2
    middle = share + square / (2 * count)
    reach = _Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    scale = 1 + square / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test, from the pictures that one model alone got right.

    If neither model were better, each of those pictures would be a toss of a coin: twice the binomial tail,
    at most 1. Computed in whole numbers, so there is no approximation to choose for many or few pictures.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    term = total = 1
    for i in range(1, fewer + 1):
        term = term * (count - i + 1) // i
        total += term
    return min(1.0, 2 * total / (1 << count))
