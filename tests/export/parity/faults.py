"""Faults to plant in an exported graph: each changes the model while it is traced, and only then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import paddle
import pytest

from tests.export import small
from tome_core import matching, patch
from tome_core.ops import constant
from tome_export import trace
from tome_export.parity.verify import Verification

BLOCK = 2  # of five, where a fault sits in one block only


@contextmanager
def changed(owner, name: str, value) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def epsilon(model):
    norm = model.blocks[BLOCK].norm1
    return changed(norm, "_epsilon", 1e-5)


def scale_dropped(model):
    block = model.blocks[BLOCK]
    return changed(block, "_tome_parts", replace(block._tome_parts, scale=1.0))


@contextmanager
def transposed(model):
    weight = model.blocks[BLOCK].attn.proj.weight
    before = weight.numpy()
    assert before.shape[0] == before.shape[1]
    weight.set_value(before.T.copy())
    try:
        yield
    finally:
        weight.set_value(before)


def class_token_unprotected(model):
    def scores(metric, class_token, *rest):
        return matching.candidate_scores(metric, False, *rest)

    return changed(patch, "candidate_scores", scores)


def split_swapped(model):
    """Odd tokens are sources and even ones destinations."""

    def scores(metric, *rest):
        index = np.arange(metric.shape[1])
        mask = constant(-4.0 * (index % 2 == 1), [1, 1, -1]) + constant(-8.0 * (index % 2 == 0), [1, -1, 1])
        return metric.matmul(metric, transpose_y=True) + mask

    return changed(patch, "candidate_scores", scores)


def second_best(model):
    """Each token goes to the second best of its destinations."""

    def select(scores, *rest):
        best = (scores == scores.max(-1, keepdim=True)).astype("float32")
        return matching.select(scores - 2 * best, *rest)

    return changed(patch, "select", select)


def size_forgotten(model):
    """Sizes start again in every block."""
    merge = patch.merge_wavg
    return changed(patch, "merge_wavg", lambda match, x, size: merge(match, x, None))


def log_size_missing(model):
    attend = patch.attend
    return changed(patch, "attend", lambda attn, parts, x, size, **rest: attend(attn, parts, x, None, **rest))


def overwritten(model):
    """Of the tokens of a group, the last one takes it all, as a scatter without addition does."""

    def merge(match, x, size):
        _, merged_size = patch_merge(match, x, size)
        order = constant(range(1, match.tokens_in + 1), [1, 1, -1])
        ranked = match.matrix * order
        last = (ranked == ranked.max(-1, keepdim=True)).astype("float32") * match.matrix
        return last.matmul(x), merged_size

    patch_merge = patch.merge_wavg
    return changed(patch, "merge_wavg", merge)


def tokens_out_of_order(model):
    """Destinations come before the tokens that are left, instead of after."""

    def select(scores, *rest):
        match = matching.select(scores, *rest)
        return replace(match, rows=match.rows[:1] + match.rows[:0:-1])

    return changed(patch, "select", select)


@contextmanager
def outputs_swapped(model):
    forward = trace.ExportGraph.forward

    def swapped(self, image):
        first, second, *taps = forward(self, image)
        return (second, first, *taps)

    with changed(trace.ExportGraph, "forward", swapped):
        yield


def batch_leak(model):
    """A tenth of every row's attention is the mean over the batch."""
    attend = patch.attend

    def leaky(attn, parts, x, size, **rest):
        attended, metric = attend(attn, parts, x, size, **rest)
        return attended * 0.9 + attended.mean(0, keepdim=True) * 0.1, metric

    return changed(patch, "attend", leaky)


def export_with(fault: Callable, model: str, out, monkeypatch: pytest.MonkeyPatch, **asked) -> Verification:
    """Export with `fault` in the graph but not in the Python model; what parity then says."""
    save, said = trace.save_inference_model, []

    def save_faulty(layer, *rest):
        with fault(layer):
            save(layer, *rest)

    monkeypatch.setattr(trace, "save_inference_model", save_faulty)
    monkeypatch.setattr(Verification, "require", lambda self: said.append(self))
    paddle.seed(0)
    small.export_small(model, out, r=8, outputs=("logits", "sources"), **asked)
    (verification,) = said
    return verification
