"""Turns are taken in order, first runs are not counted, and the statistics are what they are called."""

import time

import numpy as np
import pytest

from tome_export.benching.machine import Machine
from tome_export.benching.result import Benchmark, Entry, figures
from tome_export.benching.turns import interleave, ratio, take_turns


def test_contenders_take_turns():
    order, rounds = [], []
    seconds = take_turns(
        [lambda: order.append("a"), lambda: order.append("b")], 2, repeats=3, after_round=rounds.append
    )
    warm, turns = order[:4], order[4:]
    assert warm == list("aabb")
    assert turns == list("aaaabbbb") * 2  # one run that is not timed, and three that are
    assert seconds.shape == (2, 2, 3) and (seconds > 0).all() and rounds == [1, 2]


def test_the_first_run_of_a_turn_is_not_timed():
    calls = iter([0.0, 0.0] + [0.05, 0.0, 0.0] * 4)  # slow after every switch
    seconds = take_turns([lambda: time.sleep(next(calls))], 4, repeats=2)
    assert np.median(seconds) < 0.04


def test_time_limits_the_rounds():
    slow = take_turns([lambda: time.sleep(0.02)], 1000, seconds=0.001, repeats=1)
    assert len(slow) == 3  # never fewer
    assert 3 <= len(take_turns([lambda: time.sleep(0.002)], 1000, seconds=0.1, repeats=1)) < 1000


def test_the_ratio_is_of_rounds_not_of_medians():
    """Two spells, one ten times slower for both: every round says 2x, so there is no spread."""
    own = np.array([[1.0, 1.0, 9.0], [10.0, 10.0, 2.0], [10.0, 30.0, 10.0], [1.0, 1.0, 1.0]])
    found = ratio(own, np.array([[2.0], [20.0], [20.0], [2.0]]))
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)
    assert str(found) == "2.00x (2.00 to 2.00)"
    halves = ratio(np.ones((5, 1)), np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))
    assert (halves.low, halves.median, halves.high) == (2.0, 3.0, 4.0)


def entry(name, against, macs):
    return Entry(name, name, f"/{name}", "onnx", "1", "fp32", (), (8,), macs, against, None)


def test_figures():
    entries = (entry("mine", 1, 100), entry("r0", None, 250))
    seconds = np.stack([np.full((4, 3), 0.002), np.full((4, 3), 0.005)], axis=1)
    seconds[0, 0, 0] = 0.1
    mine, other = figures(seconds, 8, entries, {0: 5})
    assert (mine.batch, mine.entry, mine.runs, mine.memory) == (8, 0, 12, 5)
    assert mine.median_ms == pytest.approx(2) and 2 < mine.p95_ms < 100
    assert mine.images_per_second == pytest.approx(4000)
    assert mine.ratio.median == pytest.approx(2.5)
    assert other.ratio is None and other.memory is None
    found = Benchmark("now", Machine.here(), "cpu", 2, {"8": 4}, 3, entries, (mine, other), ())
    assert found.fewer_macs(entries[0]) == 2.5 and found.fewer_macs(entries[1]) is None


def test_interleave():
    found = interleave({"slow": lambda: time.sleep(0.02), "fast": lambda: time.sleep(0.002)}, rounds=3)
    assert found["slow"].ratio.median == 1 and found["fast"].ratio.median > 1
    assert found["slow"].milliseconds > found["fast"].milliseconds >= 2
    assert "1.00x (1.00 to 1.00)" in str(found["slow"])
