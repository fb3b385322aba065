"""Merging, source maps and unmerging against the loops of the reference; gradients by finite differences."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tome_core.matching import (
    bipartite_soft_matching,
    kth_bipartite_soft_matching,
    random_bipartite_soft_matching,
)
from tome_core.merging import merge_mean, merge_source, merge_sum, merge_wavg, unmerge

KINDS = {
    "plain": lambda metric, r: bipartite_soft_matching(metric, r),
    "class": lambda metric, r: bipartite_soft_matching(metric, r, class_token=True),
    "distill": lambda metric, r: bipartite_soft_matching(metric, r, class_token=True, distill_token=True),
    "kth": lambda metric, r: kth_bipartite_soft_matching(metric, min(r, metric.shape[1])),
    "random": lambda metric, r: random_bipartite_soft_matching(metric, min(r, metric.shape[1] // 2), seed=r),
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))
shapes = {
    "seed": st.integers(0, 2**32 - 1),
    "batch": st.integers(1, 3),
    "tokens": st.integers(2, 24),
    "channels": st.integers(1, 9),
    "r": st.integers(0, 14),
}
relaxed = settings(max_examples=40, deadline=None)


def make_case(kind, seed, batch, tokens, channels, r, dtype="float32"):
    """A match of the product, the same as reference data, a numpy generator, and x [B, N, C]."""
    rng = np.random.default_rng(seed)
    match = KINDS[kind](paddle.to_tensor(rng.normal(size=(batch, tokens, 5)).astype("float32")), r)
    expected = reference.Matching(match.group.numpy(), match.tokens_out)
    return match, expected, rng, rng.normal(size=(batch, tokens, channels)).astype(dtype)


def close(actual, expected, tolerance=1e-5):
    assert list(actual.shape) == list(expected.shape)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- values


@every_kind
@relaxed
@given(**shapes)
def test_sum_and_mean(kind, seed, batch, tokens, channels, r):
    match, expected, _, x = make_case(kind, seed, batch, tokens, channels, r)
    close(merge_sum(match, paddle.to_tensor(x)), reference.merge_sum(expected, x))
    close(merge_mean(match, paddle.to_tensor(x)), reference.merge_mean(expected, x))


@every_kind
@relaxed
@given(**shapes)
def test_weighted_average_and_sizes(kind, seed, batch, tokens, channels, r):
    match, expected, rng, x = make_case(kind, seed, batch, tokens, channels, r)
    given_size = rng.integers(1, 9, size=(batch, tokens, 1)).astype("float32")
    for size in (None, given_size):
        merged, merged_size = merge_wavg(
            match, paddle.to_tensor(x), None if size is None else paddle.to_tensor(size)
        )
        wanted, wanted_size = reference.merge_wavg(expected, x, size)
        close(merged, wanted)
        np.testing.assert_array_equal(merged_size.numpy(), wanted_size)  # small whole numbers: exact
        total = np.full((batch, 1), tokens) if size is None else size.sum(axis=1)
        np.testing.assert_array_equal(merged_size.numpy().sum(axis=1), total)


@every_kind
@relaxed
@given(**shapes)
def test_unmerge_gives_every_token_its_group(kind, seed, batch, tokens, channels, r):
    match, expected, rng, x = make_case(kind, seed, batch, tokens, channels, r)
    y = rng.normal(size=(batch, match.tokens_out, channels)).astype("float32")
    close(unmerge(match, paddle.to_tensor(y)), reference.unmerge(expected, y), tolerance=0)
    restored = unmerge(match, merge_mean(match, paddle.to_tensor(x)))
    close(restored, reference.unmerge(expected, reference.merge_mean(expected, x)))


def test_unmerge_puts_class_and_distillation_tokens_back():
    match, _, _, x = make_case("distill", seed=1, batch=2, tokens=16, channels=3, r=6)
    restored = unmerge(match, merge_wavg(match, paddle.to_tensor(x))[0]).numpy()
    np.testing.assert_array_equal(restored[:, :2], x[:, :2])  # groups of one: nothing to round


@every_kind
@relaxed
@given(rounds=st.lists(st.integers(0, 7), min_size=1, max_size=4), **shapes)
def test_merges_compose(kind, rounds, seed, batch, tokens, channels, r):
    """After several merges the source map says where each first token's mass went, in one step."""
    rng = np.random.default_rng(seed)
    x = first = rng.normal(size=(batch, tokens, channels)).astype("float32")
    size = sources = wanted_sources = None
    for r_now in [r, *rounds]:
        metric = paddle.to_tensor(rng.normal(size=(batch, x.shape[1], 5)).astype("float32"))
        match = KINDS[kind](metric, r_now)
        merged, size = merge_wavg(match, paddle.to_tensor(x), size)
        expected = reference.Matching(match.group.numpy(), match.tokens_out)
        sources = merge_source(match, sources)
        wanted_sources = reference.merge_source(expected, wanted_sources)
        assert sources.dtype == paddle.int32
        np.testing.assert_array_equal(sources.numpy(), wanted_sources)
        x = merged.numpy()
    whole = reference.Matching(sources.numpy(), x.shape[1])
    np.testing.assert_array_equal(size.numpy(), reference.merge_sum(whole, np.ones((batch, tokens, 1))))
    np.testing.assert_allclose(x, reference.merge_mean(whole, first), rtol=1e-4, atol=1e-5)


@every_kind
def test_no_merge_changes_nothing(kind):
    match, _, _, x = make_case(kind, seed=2, batch=2, tokens=11, channels=4, r=0)
    merged, size = merge_wavg(match, paddle.to_tensor(x))
    for out in (merged, merge_sum(match, paddle.to_tensor(x)), merge_mean(match, paddle.to_tensor(x))):
        np.testing.assert_array_equal(out.numpy(), x)
    assert (size.numpy() == 1).all() and size.shape == [2, 11, 1]
    assert merge_source(match, None).tolist() == [list(range(11))] * 2


@every_kind
def test_float64_stays_float64(kind):
    """Values that only move keep every digit; an average divides by sizes, which are float32."""
    match, expected, _, x = make_case(kind, seed=3, batch=2, tokens=13, channels=4, r=5, dtype="float64")
    merged, _ = merge_wavg(match, paddle.to_tensor(x))
    assert merged.dtype == paddle.float64
    close(merged, reference.merge_wavg(expected, x)[0], tolerance=1e-7)
    close(merge_sum(match, paddle.to_tensor(x)), reference.merge_sum(expected, x), tolerance=1e-13)
    close(unmerge(match, merged), reference.unmerge(expected, merged.numpy()), tolerance=0)


# ---------------------------------------------------------------- gradients


def finite_difference(function, x, step=1e-5):
    """d function / d x by central differences; float64 in, a number out."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


@every_kind
def test_gradient_of_the_weighted_average(kind):
    match, _, rng, x = make_case(kind, seed=4, batch=2, tokens=9, channels=3, r=3, dtype="float64")
    size = rng.uniform(1, 5, size=(2, 9, 1))
    weights = paddle.to_tensor(rng.normal(size=(2, match.tokens_out, 3)))
    size_weights = paddle.to_tensor(rng.normal(size=(2, match.tokens_out, 1)))

    def loss(x, size):
        merged, merged_size = merge_wavg(match, x, size)
        return (merged.tanh() * weights).sum() + (merged_size.log() * size_weights).sum()

    tensors = [paddle.to_tensor(x, stop_gradient=False), paddle.to_tensor(size, stop_gradient=False)]
    loss(*tensors).backward()
    by_x = finite_difference(lambda v: loss(paddle.to_tensor(v), paddle.to_tensor(size)).item(), x)
    by_size = finite_difference(lambda v: loss(paddle.to_tensor(x), paddle.to_tensor(v)).item(), size)
    assert np.abs(by_x).max() > 0.1 and np.abs(by_size).max() > 0.1
    close(tensors[0].grad, by_x, tolerance=1e-7)
    close(tensors[1].grad, by_size, tolerance=1e-7)


@every_kind
@pytest.mark.parametrize("operator", [merge_sum, merge_mean, unmerge])
def test_gradient_of_the_linear_operators(kind, operator):
    match, _, rng, x = make_case(kind, seed=5, batch=2, tokens=8, channels=2, r=2, dtype="float64")
    x = rng.normal(size=(2, match.tokens_out, 2)) if operator is unmerge else x
    weights = paddle.to_tensor(rng.normal(size=operator(match, paddle.to_tensor(x)).shape))
    tensor = paddle.to_tensor(x, stop_gradient=False)
    (operator(match, tensor) * weights).sum().backward()
    expected = finite_difference(lambda v: (operator(match, paddle.to_tensor(v)) * weights).sum().item(), x)
    close(tensor.grad, expected, tolerance=1e-7)
