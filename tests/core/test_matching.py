"""Matchings against the loops of the reference: which token merges into which, in which order they stay."""

from itertools import product

import numpy as np
import paddle
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests import reference
from tome_core.matching import (
    bipartite_soft_matching,
    kth_bipartite_soft_matching,
    mergeable,
    random_bipartite_soft_matching,
    select,
)

SAFE = 1e-5  # float32 similarities closer than this may be ranked either way
TOKENS = [("none", False, False), ("class", True, False), ("class+distill", True, True)]
special_tokens = pytest.mark.parametrize(
    ("class_token", "distill_token"), [flags[1:] for flags in TOKENS], ids=[flags[0] for flags in TOKENS]
)
relaxed = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
seeds = st.integers(0, 2**32 - 1)


def random_metric(seed, batch, tokens, channels):
    return np.random.default_rng(seed).normal(size=(batch, tokens, channels)).astype("float32")


def tied_metric(seed, batch, tokens, vocabulary):
    """Tokens from a few vectors with four entries of +-1: length 2, similarities exact multiples of 1/4."""
    rng = np.random.default_rng(seed)
    words = np.zeros((vocabulary, 8), dtype="float32")
    for word in words:
        word[rng.choice(8, size=4, replace=False)] = rng.choice([-1, 1], size=4)
    return words[rng.integers(0, vocabulary, size=(batch, tokens))]


def check_same(match, expected, metric):
    """The product's match is the reference's, down to the order of the outputs."""
    assert match.group.dtype == paddle.int64
    assert (match.tokens_in, match.tokens_out) == (metric.shape[1], expected.outputs)
    np.testing.assert_array_equal(match.group.numpy(), expected.group)


# ---------------------------------------------------------------- bipartite soft matching


@special_tokens
@relaxed
@given(seeds, st.integers(1, 3), st.integers(1, 41), st.integers(2, 16), st.integers(0, 25))
def test_bipartite_on_random_metrics(class_token, distill_token, seed, batch, tokens, channels, r):
    metric = random_metric(seed, batch, tokens, channels)
    flags = {"class_token": class_token, "distill_token": distill_token}
    expected = reference.bipartite_soft_matching(metric.astype("float64"), r, **flags)
    assume(expected.margin > SAFE)
    check_same(bipartite_soft_matching(paddle.to_tensor(metric), r, **flags), expected, metric)


@special_tokens
@relaxed
@given(seeds, st.integers(1, 3), st.integers(1, 41), st.integers(1, 5), st.integers(0, 25))
def test_bipartite_on_exact_ties(class_token, distill_token, seed, batch, tokens, vocabulary, r):
    """Lower index first in the ranking, lowest index as the destination."""
    metric = tied_metric(seed, batch, tokens, vocabulary)
    flags = {"class_token": class_token, "distill_token": distill_token}
    expected = reference.bipartite_soft_matching(metric, r, **flags)
    check_same(bipartite_soft_matching(paddle.to_tensor(metric), r, **flags), expected, metric)


@special_tokens
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 6, 7])
def test_bipartite_on_few_tokens_and_every_r(class_token, distill_token, tokens):
    metric = random_metric(tokens, 4, tokens, 5)
    for r in range(tokens + 2):
        expected = reference.bipartite_soft_matching(metric.astype("float64"), r, class_token, distill_token)
        assert expected.margin > SAFE
        match = bipartite_soft_matching(paddle.to_tensor(metric), r, class_token, distill_token)
        check_same(match, expected, metric)


@special_tokens
def test_bipartite_at_the_size_of_vit_b(class_token, distill_token):
    metric = random_metric(17, 2, 197 + distill_token, 64)
    for r in (1, 16, 98, 10_000):
        expected = reference.bipartite_soft_matching(metric.astype("float64"), r, class_token, distill_token)
        assert expected.margin > 1e-6, "choose another seed: too near a tie"
        match = bipartite_soft_matching(paddle.to_tensor(metric), r, class_token, distill_token)
        check_same(match, expected, metric)


def test_constant_metric_merges_the_first_tokens_into_the_first_destination():
    """All similarities are equal: the answer can be written down by hand."""
    metric = paddle.ones([2, 9, 4])
    by_hand = {
        # A = 0 2 4 6 8, B = 1 3 5 7, r = 2
        (False, False): [3, 3, 3, 4, 0, 5, 1, 6, 2],  # out: 4 6 8 | 1 3 5 7, and 0, 2 -> 1
        (True, False): [0, 3, 3, 4, 3, 5, 1, 6, 2],  # out: 0 6 8 | 1 3 5 7, and 2, 4 -> 1
        (True, True): [0, 1, 4, 4, 4, 5, 2, 6, 3],  # out: 0 1 | 6 8 | 3 5 7, and 2, 4 -> 3
    }
    for flags, group in by_hand.items():
        assert bipartite_soft_matching(metric, 2, *flags).group.tolist() == [group, group]


def test_only_the_direction_of_a_metric_counts():
    metric = random_metric(3, 2, 20, 6)
    scaled = metric * np.random.default_rng(4).uniform(0.1, 30, size=(2, 20, 1)).astype("float32")
    one, other = (bipartite_soft_matching(paddle.to_tensor(m), 6, True) for m in (metric, scaled))
    assert one.group.tolist() == other.group.tolist()


def test_bipartite_on_an_all_zero_metric_is_still_a_matching():
    match = bipartite_soft_matching(paddle.zeros([2, 10, 4]), 3, class_token=True)
    check_same(match, reference.bipartite_soft_matching(np.zeros((2, 10, 4)), 3, True), np.zeros((2, 10, 4)))


@special_tokens
@relaxed
@given(seeds, st.integers(2, 41), st.integers(1, 25), st.sampled_from([0.0, 0.1, 1.0]))
def test_whatever_the_scores_every_token_has_a_place(class_token, distill_token, seed, tokens, r, broken):
    """Scores without the mask, and NaN: what comes out means nothing, but Paddle's one-hot ends a run, and
    with it a whole batch, if a label is out of range."""
    r = mergeable(r, tokens, class_token, distill_token)
    assume(r > 0)
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2, tokens, tokens)).astype("float32")
    scores[0][rng.random((tokens, tokens)) < broken] = np.nan
    match = select(paddle.to_tensor(scores), r, class_token, distill_token)
    np.testing.assert_array_equal(match.matrix.sum(1).numpy(), 1)


@special_tokens
def test_special_tokens_stay_alone_and_in_front(class_token, distill_token):
    metric = random_metric(11, 3, 18, 4)
    group = bipartite_soft_matching(paddle.to_tensor(metric), 8, class_token, distill_token).group.numpy()
    for index in range(int(class_token) + int(distill_token)):
        assert (group[:, index] == index).all()
        assert ((group == index).sum(axis=1) == 1).all()


@special_tokens
def test_rows_of_a_batch_do_not_see_each_other(class_token, distill_token):
    metric = paddle.to_tensor(random_metric(5, 4, 23, 8))
    together = bipartite_soft_matching(metric, 7, class_token, distill_token).group
    for row in range(4):
        alone = bipartite_soft_matching(metric[row : row + 1], 7, class_token, distill_token).group
        assert alone.tolist() == together[row : row + 1].tolist()


# ---------------------------------------------------------------- every k-th token


@relaxed
@given(seeds, st.integers(1, 3), st.integers(0, 9), st.integers(0, 32), st.integers(2, 12), st.booleans())
def test_kth(seed, batch, k, extra, channels, ties):
    tokens = max(k, 1) + extra
    metric = tied_metric(seed, batch, tokens, 4) if ties else random_metric(seed, batch, tokens, channels)
    expected = reference.kth_bipartite_soft_matching(metric.astype("float64"), k)
    assume(ties or expected.margin > SAFE)
    check_same(kth_bipartite_soft_matching(paddle.to_tensor(metric), k), expected, metric)


def test_kth_merges_trailing_tokens_too():
    """Eight tokens, k = 3: destinations 2 and 5; 6 and 7 are sources although no destination follows."""
    metric = np.array([[[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]], dtype="float32")
    match = kth_bipartite_soft_matching(paddle.to_tensor(metric), 3)
    assert match.group.tolist() == [[0, 1, 0, 0, 1, 1, 0, 1]] and match.tokens_out == 2


# ---------------------------------------------------------------- random destinations


def consistent_sources(group, metric, r):
    """Every choice of r sources for which the reference gives this very group (small cases only)."""
    members = [np.flatnonzero(group == position) for position in range(len(group) - r)]
    found = []
    for destinations in product(*members):
        sources = sorted(set(range(len(group))) - set(destinations))
        expected = reference.random_bipartite_soft_matching(metric[None], [sources])
        if expected.group[0].tolist() == group.tolist():
            found.append(tuple(sources))
    return found


@relaxed
@given(seeds, st.integers(1, 3), st.integers(2, 12), st.data())
def test_random_keeps_destinations_in_order_and_merges_into_the_most_similar(seed, batch, tokens, data):
    r = data.draw(st.integers(0, tokens // 2))
    metric = random_metric(seed, batch, tokens, 6)
    match = random_bipartite_soft_matching(paddle.to_tensor(metric), r, seed=seed % 1000)
    assert (match.tokens_in, match.tokens_out) == (tokens, tokens - r)
    for group, sample in zip(match.group.numpy(), metric.astype("float64"), strict=True):
        assert set(group.tolist()) == set(range(tokens - r))
        assert consistent_sources(group, sample, r)


def test_random_is_repeatable_with_a_seed_and_differs_between_seeds():
    metric = paddle.to_tensor(random_metric(1, 2, 40, 8))
    draw = {seed: random_bipartite_soft_matching(metric, 12, seed=seed).group.tolist() for seed in range(5)}
    assert len({str(group) for group in draw.values()}) == 5
    for seed, group in draw.items():
        assert random_bipartite_soft_matching(metric, 12, seed=seed).group.tolist() == group


def test_random_lets_every_token_be_a_source():
    metric = paddle.to_tensor(np.eye(6, dtype="float32")[None])  # orthogonal: a source goes to destination 0
    never_alone = set()
    for seed in range(60):
        group = random_bipartite_soft_matching(metric, 1, seed=seed).group.numpy()[0]
        shared = np.flatnonzero(group == 0)
        never_alone.add(int(shared[-1]))
    assert never_alone == {1, 2, 3, 4, 5}


def test_random_without_a_seed_varies():
    metric = paddle.to_tensor(random_metric(2, 1, 64, 8))
    assert len({str(random_bipartite_soft_matching(metric, 24).group.tolist()) for _ in range(4)}) > 1
