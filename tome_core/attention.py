"""The two branches of a pre-norm block, with what Token Merging adds to the first."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from tome_core.ops import constant, fresh
from tome_core.structure import BlockParts


def attend(attn: nn.Layer, parts: BlockParts, x, size, wants_metric: bool):
    """Self-attention over tokens of different sizes (paper, section 3, equation 1), and the merging metric.

    x: [batch, tokens, channels], normalised. size: float32 [batch, tokens, 1] or None for all equal.
    Returns ([batch, tokens, channels], metric): the mean over heads of the keys as attention uses them,
    [batch, tokens, channels of a head], or None. A folded attention returns it mirrored and of unit length.
    """
    tokens, heads = x.shape[1], parts.num_heads
    qkv = attn.qkv(x)
    metric = None
    if is_folded(attn):
        width = attn._tome_folded
        widths = [width] * 3 + [qkv.shape[-1] - 3 * width] * wants_metric
        q, k, v, *metric = qkv.split(widths, axis=-1)
        metric = _direction(metric[0]) if metric else None
    else:
        q, k, v = qkv.split(3, axis=-1)
    by_head = [0, tokens, heads, q.shape[-1] // heads]
    q, k, v = q.reshape(by_head), k.reshape(by_head), v.reshape(by_head)
    if parts.qk_norm:
        q, k = attn.q_norm(q), attn.k_norm(k)
    if wants_metric and metric is None:
        metric = k.mean(2)
    if not is_folded(attn):
        q = q * parts.scale
    scores = q.transpose([0, 2, 1, 3]).matmul(k.transpose([0, 2, 1, 3]), transpose_y=True)
    if size is not None:
        scores = scores + fresh(size).log().reshape([-1, 1, 1, tokens])
    weights = _through(attn, parts.attn_drop, F.softmax(scores, axis=-1))
    if weights.dtype != v.dtype:  # sizes are float32 and lift half precision up to the softmax
        weights = weights.astype(v.dtype)
    x = weights.matmul(v.transpose([0, 2, 1, 3])).transpose([0, 2, 1, 3])
    return _through(attn, parts.proj_drop, attn.proj(x.reshape([0, tokens, x.shape[2] * x.shape[3]]))), metric


def scaled(block: nn.Layer, parts: BlockParts, branch: int, x):
    """What a block does to branch 0 (attention) or 1 (MLP) before adding it: LayerScale, then drop path."""
    name = parts.layer_scale[branch]
    if name is not None:
        scale = getattr(block, name)
        x = scale(x) if isinstance(scale, nn.Layer) else scale * x
    return _through(block, parts.drop_path[branch], x)


def _direction(mirrored):
    """[m, -m] scaled to unit length. Its mean is zero, so LayerNorm does it: one operator instead of six."""
    width = mirrored.shape[-1]
    scale, shift = constant([width**-0.5] * width, [-1]), constant([0] * width, [-1])
    return F.layer_norm(mirrored, [width], scale, shift, epsilon=1e-12)


def is_folded(attn: nn.Layer) -> bool:
    return hasattr(attn, "_tome_folded")


def _through(layer: nn.Layer, name: str | None, x):
    return x if name is None else getattr(layer, name)(x)
