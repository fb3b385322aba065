"""Shorten the graph before export by moving constant arithmetic into the weights.

Two operations of every patched block are linear in the output of `attn.qkv` and so can be part of it:
the scale of the queries, and the mean over heads of the keys, which is the merging metric. Folding turns
[C, 3C] into [C, 3C + head width]: two or more operators per block less, and 0.7 % more multiply-adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import paddle
from paddle import nn

from tome_core.patch import _has


@contextmanager
def folded(model: nn.Layer) -> Iterator[None]:
    """Within the block, `model` (patched) computes the same function with fewer operators.

    Afterwards it is as it was: the original weights are set aside, not changed.
    """
    originals = []
    try:
        for block, r in zip(model.blocks, model.tome.schedule.r, strict=True):
            attn = block.attn
            if _has(attn, "q_norm"):  # normalised queries and keys are no longer linear in the weights
                continue
            originals.append((attn, attn.qkv))
            attn._tome_folded = attn.qkv.weight.shape[0]
            attn.qkv = _fold(attn, with_metric=r > 0)
        yield
    finally:
        for attn, qkv in originals:
            attn.qkv = qkv
            del attn._tome_folded


@paddle.no_grad()
def _fold(attn: nn.Layer, with_metric: bool) -> nn.Linear:
    weight, bias = attn.qkv.weight, attn.qkv.bias
    linear = nn.Linear(weight.shape[0], 1, bias_attr=None if bias is not None else False)
    linear.weight = _parameter(_fold_columns(weight, attn, with_metric))
    if bias is not None:
        linear.bias = _parameter(_fold_columns(bias.unsqueeze(0), attn, with_metric).squeeze(0))
    return linear


def _fold_columns(matrix, attn: nn.Layer, with_metric: bool):
    """[rows, 3C] -> [rows, 3C (+ head width)]: queries scaled, mean of the keys over the heads appended."""
    q, k, v = matrix.split(3, axis=-1)
    parts = [q * attn.scale, k, v]
    if with_metric:
        parts.append(k.reshape([matrix.shape[0], attn.num_heads, -1]).mean(1))
    return paddle.concat(parts, axis=-1)


def _parameter(value) -> paddle.Tensor:
    return paddle.create_parameter(value.shape, value.dtype, default_initializer=nn.initializer.Assign(value))
