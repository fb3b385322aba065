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

from tome_core.structure import BlockParts, find_blocks


@contextmanager
def folded(model: nn.Layer) -> Iterator[None]:
    """Within the block, `model` (patched) computes the same function with fewer operators.

    Afterwards it is as it was: the original weights are set aside, not changed.
    """
    originals = []
    try:
        for block, r in zip(find_blocks(model), model.tome.schedule.r, strict=True):
            attn, parts = block.attn, block._tome_parts
            # Normalised queries and keys are not linear in the weights; a layer that only looks like Linear
            # (an adapter, a quantised one) computes more than its weight says.
            if parts.qk_norm or type(attn.qkv) is not nn.Linear:
                continue
            originals.append((attn, attn.qkv))
            folded_qkv = _fold(attn.qkv, parts, with_metric=r > 0)
            attn._tome_folded = attn.qkv.weight.shape[1] // 3
            attn.qkv = folded_qkv
        yield
    finally:
        for attn, qkv in originals:
            attn.qkv = qkv
            if hasattr(attn, "_tome_folded"):
                del attn._tome_folded


@paddle.no_grad()
def _fold(qkv: nn.Linear, parts: BlockParts, with_metric: bool) -> nn.Linear:
    bias = qkv.bias
    linear = nn.Linear(qkv.weight.shape[0], 1, bias_attr=None if bias is not None else False)
    linear.weight = _parameter(_fold_columns(qkv.weight, parts, with_metric))
    if bias is not None:
        linear.bias = _parameter(_fold_columns(bias.unsqueeze(0), parts, with_metric).squeeze(0))
    return linear


def _fold_columns(matrix, parts: BlockParts, with_metric: bool):
    """[rows, 3C] -> [rows, 3C (+ twice a head)]: queries scaled, plus and minus the mean key appended."""
    q, k, v = matrix.split(3, axis=-1)
    columns = [q * parts.scale, k, v]
    if with_metric:
        metric = k.reshape([matrix.shape[0], parts.num_heads, -1]).mean(1)
        columns += [metric, -metric]
    return paddle.concat(columns, axis=-1)


def _parameter(value) -> paddle.Tensor:
    return paddle.create_parameter(value.shape, value.dtype, default_initializer=nn.initializer.Assign(value))
