"""The search on losses that can be worked out, and the goals it serves."""

import itertools

import numpy as np
import pytest

from tome_export.errors import RequestError
from tome_export.tuning.goal import Goal
from tome_export.tuning.score import Score
from tome_export.tuning.search import search
from tome_export.tuning.shapes import Frame, fitted, starting_shapes

FRAME = Frame(3, 61, 1)
MOST = 0.62


def cost(schedule):
    return sum(schedule.tokens[1:]) / (3 * 61)


def score(schedule, weights):
    """Merging hurts with the square of r, in each block by its own weight."""
    loss = float(np.dot(weights, np.square(schedule.r))) / 1000
    return Score(schedule, np.array([loss < 1]), np.array([loss]))


def run(weights, seed=0, more=lambda best: True):
    tried = []

    def judge(schedule, against):
        tried.append(schedule.r)
        return score(schedule, weights)

    fit = lambda shape: fitted(shape, FRAME, cost, MOST)  # noqa: E731
    return search(fit, judge, starting_shapes(3), seed, more), tried


@pytest.mark.parametrize("weights", [(1, 1, 1), (9, 1, 1), (1, 9, 1), (1, 1, 9), (0.1, 3, 0), (5, 0, 5)])
def test_it_comes_close_to_the_best_of_all_schedules(weights):
    every = (FRAME.schedule(r) for r in itertools.product(range(31), repeat=3))
    best = min(score(each, weights).loss for each in every if cost(each) <= MOST)
    found, tried = run(weights)
    assert found.complete and cost(found.best.schedule) <= MOST
    assert found.best.loss <= 1.15 * best + 0.01
    assert len(tried) == len(set(tried)) < 150


def test_it_is_repeatable_and_ends_when_told():
    assert run((5, 1, 2), seed=3)[1] == run((5, 1, 2), seed=3)[1]
    found, tried = run((5, 1, 2), more=lambda best: False)
    assert not found.complete and tried == [found.best.schedule.r]


def test_what_cannot_be_that_fast_is_not_found():
    found = search(lambda shape: None, None, starting_shapes(3), 0, lambda best: True)
    assert found.best is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "one of them"),
        ({"speedup": 2.0, "agreement": 0.9}, "one of them"),
        ({"speedup": 1.0}, "above 1, such as 2.0, not 1"),
        ({"speedup": float("nan")}, "above 1"),
        ({"agreement": 99.0}, "at most 1, such as 0.99, not 99"),
        ({"agreement": 0.0}, "above 0"),
    ],
)
def test_goals_that_make_no_sense(asked, told):
    with pytest.raises(RequestError, match=told):
        Goal(**asked)
