"""The statistics against SciPy's, and the best classes against `predict`'s."""

import numpy as np
import pytest

from tome_export.evaluation.metrics import mcnemar, wilson_interval
from tome_export.evaluation.outcomes import best
from tome_export.predict import best_classes


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 0), (1, 0), (0, 1), (5, 0), (3, 3), (8, 2), (2, 8), (25, 40), (300, 351), (4000, 4321), (0, 900)],
)
def test_mcnemars_test_is_the_exact_binomial_one(first, second):
    stats = pytest.importorskip("scipy.stats")
    count = first + second
    expected = stats.binomtest(first, count, 0.5).pvalue if count else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemars_test_by_hand():
    assert mcnemar(5, 0) == 2 / 32  # five tosses, all heads or all tails
    assert mcnemar(1, 3) == 2 * (1 + 4) / 16


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 50), (50, 50), (13, 21), (40_000, 50_000)])
def test_the_confidence_interval_is_wilsons(right, count):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, count) == pytest.approx(tuple(expected), abs=1e-9)


def test_best_classes_are_those_of_predict():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 9)).astype(np.float32) * 5
    logits[3] = 1.5  # all equal
    logits[4, 2:5] = logits[4].max() + 1
    classes, probabilities = best(logits)
    assert classes.shape == probabilities.shape == (30, 5)
    for i, row in enumerate(logits):
        expected = best_classes(row, None, 5)
        assert classes[i].tolist() == [entry.index for entry in expected]
        np.testing.assert_allclose(probabilities[i], [entry.probability for entry in expected], rtol=1e-6)


def test_logits_that_are_not_numbers_have_no_best_class():
    logits = np.float32([[1, 2, 3], [1, np.nan, 3], [1, 2, np.inf], [3, 2, 1]])
    classes, probabilities = best(logits)
    assert classes.tolist() == [[2, 1, 0], [-1, -1, -1], [-1, -1, -1], [0, 1, 2]]
    assert np.isnan(probabilities).any(1).tolist() == [False, True, True, False]
