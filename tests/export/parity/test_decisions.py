"""Decisions as numbers: noise is never called a fault, and what noise cannot explain always is."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tome_core.matching import candidate_scores
from tome_core.matching import select as select_in_paddle
from tome_export.parity.decisions import (
    Block,
    check_own,
    compare,
    label_problem,
    margin,
    mask_problem,
    select,
)

SPECIAL = [(False, False), (True, False), (True, True)]
special = pytest.mark.parametrize(("class_token", "distill_token"), SPECIAL, ids=["none", "class", "distill"])
seeds = st.integers(0, 2**32 - 1)


def draw(seed, class_token, distill_token, grid=None):
    """A block and similarities as a model gives them. grid: number of different values, for ties."""
    rng = np.random.default_rng(seed)
    tokens = int(rng.integers(5, 40))
    block = Block(tokens, 1, class_token, distill_token)
    r = int(rng.integers(1, max(2, block.sources.sum() - 1)))
    scores = rng.uniform(-1, 1, (tokens, tokens))
    if grid:
        scores = np.round(scores * grid) / grid
    scores += -4.0 * ~block.destinations[None] - 8.0 * ~block.sources[:, None]
    return Block(tokens, r, class_token, distill_token), scores.astype(np.float32)


@special
@settings(max_examples=60, deadline=None)
@given(seeds, st.booleans())
def test_labels_are_the_models_own(class_token, distill_token, seed, ties):
    """The same selection, written twice: in numpy here, in static-shape operators in the model."""
    block, scores = draw(seed, class_token, distill_token, 3 if ties else None)
    match = select_in_paddle(paddle.to_tensor(scores[None]), block.r, class_token, distill_token)
    np.testing.assert_array_equal(select(scores, block), match.label.numpy()[0])


@special
@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1e-6, 1e-3, 0.1, 0.5]))
def test_noise_is_never_a_fault(class_token, distill_token, seed, noise):
    """Whatever two runtimes choose by similarities that differ by at most `noise`, rounding explains it."""
    block, scores = draw(seed, class_token, distill_token)
    shift = np.random.default_rng(seed).uniform(-noise, noise, scores.shape)
    theirs = (scores + shift).astype(np.float32)
    real = float(np.abs(theirs.astype(np.float64) - scores).max())
    found = compare(select(theirs, block), select(scores, block), scores, real, block)
    assert found.faults == () and found.agreed + found.near_ties == found.decisions == block.sources.sum()


@special
@settings(max_examples=60, deadline=None)
@given(seeds)
def test_what_noise_cannot_explain_is_a_fault(class_token, distill_token, seed):
    """Without noise, any valid label but the right one is a fault, unless similarities are exactly equal."""
    block, scores = draw(seed, class_token, distill_token)
    wrong_scores = -scores
    wrong_scores += -8.0 * ~block.sources[:, None] - 4.0 * ~block.destinations[None]
    wrong = select(np.clip(wrong_scores, -12, 12), block)
    right = select(scores, block)
    assert label_problem(right, block) is None
    found = compare(wrong, right, scores, 0.0, block)
    kinds = [np.maximum(label, -1) if class_token else label for label in (wrong, right)]
    differ = int((kinds[0] != kinds[1])[block.sources].sum())
    assert len(found.faults) == differ and found.near_ties == 0


def test_a_flip_is_near_up_to_twice_the_noise():
    """Token 2 goes to 3, by 1e-3 in similarity; another runtime sends it to 1."""
    block = Block(5, 1, True, False)
    scores = np.full((5, 5), -12, np.float32)
    scores[2, [1, 3]] = 0.5, 0.501
    scores[4, [1, 3]] = 0.1, 0.2
    right, other = select(scores, block), np.array([-3, 1, 1, 3, -1])
    assert right.tolist() == [-3, 1, 3, 3, -1]
    for noise, near in ((4e-4, 0), (6e-4, 1)):
        found = compare(other, right, scores, noise, block)
        assert (found.near_ties, len(found.faults)) == (near, 1 - near)
    (fault,) = compare(other, right, scores, 4e-4, block).faults
    assert fault.startswith("token 2 goes into token 1, but into token 3 is better by 1.0e-03 in similarity")
    assert margin(scores, block) == pytest.approx(1e-3, rel=1e-3)


def test_the_rank_counts_too():
    """One of two tokens merges: 2 by 0.5, then 4 by 0.4."""
    block = Block(5, 1, True, False)
    scores = np.full((5, 5), -12, np.float32)
    scores[2, [1, 3]], scores[4, [1, 3]] = (0.5, 0.1), (0.1, 0.4)
    other = np.array([-3, 1, -1, 3, 3])
    found = compare(other, select(scores, block), scores, 0.04, block)
    assert found.decisions == 2 and len(found.faults) == 2
    assert compare(other, select(scores, block), scores, 0.06, block).near_ties == 2
    assert margin(scores, block) == pytest.approx(0.1, rel=1e-5)


def test_exact_ties_for_another_than_the_lower_index_are_seen():
    block = Block(5, 1, True, False)
    scores = np.full((5, 5), -12, np.float32)
    scores[2, [1, 3]] = scores[4, [1, 3]] = 0.5
    lower, higher = np.array([-3, 1, 1, 3, -1]), np.array([-3, 1, -1, 3, 3])
    assert check_own(lower, scores, block).agreed == 2
    assert check_own(higher, scores, block).near_ties == 2 and not check_own(higher, scores, block).faults


@special
def test_the_models_similarities_allow_what_they_should(class_token, distill_token):
    for tokens in (5, 6, 21):
        metric = paddle.to_tensor(np.random.default_rng(tokens).normal(size=(1, tokens, 8)), "float32")
        scores = candidate_scores(metric, class_token, distill_token).numpy()[0]
        block = Block(tokens, 1, class_token, distill_token)
        assert mask_problem(scores, block) is None
        for wrong, said in {
            Block(tokens, 1, True, False): "class token",
            Block(tokens, 1, True, True): "token",
        }.items():
            if (wrong.class_token, wrong.distill_token) > (class_token, distill_token):
                assert said in mask_problem(scores, wrong)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([1, 1, -3, 3, -1], "class token merged"),
        ([-3, 3, -1, 3, 1], "set of destinations"),
        ([-5, 1, -3, 3, -1], "0 tokens merged instead of 1"),
        ([-1, 1, 1, 3, 3], "2 tokens merged instead of 1"),
        ([-3, 1, 2, 3, -1], "may not receive"),
        ([-1, 1, 3, 3, -3], "out of order"),
        ([-2, 1, 3, 3, -1], "out of order"),
        ([-3, 1, 3, 3, -1], None),
    ],
)
def test_labels_that_no_selection_gives(label, said):
    problem = label_problem(np.array(label), Block(5, 1, True, False))
    assert problem is None if said is None else said in problem
