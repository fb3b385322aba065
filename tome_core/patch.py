"""Apply Token Merging to a Vision Transformer that already exists.

`apply_patch` keeps the model object, its weights and its state-dict keys. It changes two classes in place:

    the model   `r` becomes a property; every forward starts with fresh sizes; pooling is weighted by size
    its blocks  attention is proportional to token size, and tokens merge between attention and MLP

A block that has nothing to merge and no sizes to respect runs its original forward, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import paddle
import paddle.nn.functional as F
from paddle import nn

from tome_core.errors import PatchError
from tome_core.matching import bipartite_margin, bipartite_soft_matching
from tome_core.merging import merge_source, merge_wavg
from tome_core.ops import fresh
from tome_core.schedule import RSpec, Schedule, make_schedule


@dataclass
class ToMeState:
    """What a patched model and its blocks share. `size` and `source` belong to the forward in progress."""

    class_token: bool
    distill_token: bool
    tokens: int  # entering block 0
    prop_attn: bool
    trace_source: bool
    r: RSpec = 0
    schedule: Schedule = field(default_factory=lambda: Schedule((), (), 0))
    size: paddle.Tensor | None = None  # float32 [batch, tokens, 1]; None: every token is one patch
    source: paddle.Tensor | None = None  # int32 [batch, tokens of block 0]; None: nothing merged yet
    margins: list[paddle.Tensor] | None = None  # set to [] to collect each merging block's decision margin

    @property
    def protected(self) -> int:
        return self.class_token + self.distill_token


def apply_patch(model: nn.Layer, prop_attn: bool = True, trace_source: bool = False) -> nn.Layer:
    """Patch `model` in place and return it; it merges nothing until `model.r` is set.

    prop_attn: add log(size) over the keys in attention (paper, section 3, equation 1). Right for supervised
    models off the shelf; MAE models that were not trained with Token Merging do better without.
    trace_source: keep `model.tome.source`, int32 [batch, tokens], the group each input token ended in.

    Then `model.r = 16`, a list, or `(16, -1.0)`; see `tome_core.schedule.parse_r`. Patching again only
    changes the options. Raises PatchError if the model's structure is not one this is faithful for.
    """
    if isinstance(model, _PatchedModel):
        model.tome.prop_attn, model.tome.trace_source = prop_attn, trace_source
        return model
    _check(model)
    model.tome = ToMeState(
        class_token=_has(model, "cls_token"),
        distill_token=_has(model, "dist_token"),
        tokens=model.pos_embed.shape[1],
        prop_attn=prop_attn,
        trace_source=trace_source,
    )
    for index, block in enumerate(model.blocks):
        block._tome, block._tome_index = model.tome, index
        _mix(block, _PatchedBlock)
    _mix(model, _PatchedModel)
    model.r = 0
    return model


class _PatchedModel:
    """Modifies a Vision Transformer: adds `r`, resets the token sizes, weights the pooling by size."""

    @property
    def r(self) -> RSpec:
        return self.tome.r

    @r.setter
    def r(self, r: RSpec) -> None:
        state = self.tome
        state.schedule = make_schedule(r, len(self.blocks), state.tokens, state.protected)
        state.r = r

    def forward(self, x):
        state = self.tome
        state.size = state.source = None
        out = _original(self).forward(x)
        if state.trace_source and state.source is None:  # nothing merged: every token is its own group
            state.source = paddle.arange(state.tokens, dtype="int32").expand([x.shape[0], -1])
        return out

    def pool(self, x):
        state = self.tome
        if state.size is None:
            return _original(self).pool(x)
        patches = state.tokens - state.protected
        return (x * state.size)[:, state.protected :].sum(1) / patches


class _PatchedBlock:
    """Modifies a pre-norm block: proportional attention, then merging, then the MLP."""

    def forward(self, x):
        state = self._tome
        r = state.schedule.r[self._tome_index]
        size = state.size if state.prop_attn else None
        if r == 0 and size is None and not _is_folded(self.attn):
            return _original(self).forward(x)
        attended, metric = _attention(self.attn, self.norm1(x), size, wants_metric=r > 0)
        x = x + _scaled(self, 1, attended)
        if r > 0:
            match = bipartite_soft_matching(metric, r, state.class_token, state.distill_token)
            if state.margins is not None:
                state.margins.append(bipartite_margin(metric, r, state.class_token, state.distill_token))
            x, state.size = merge_wavg(match, x, state.size)
            if state.trace_source:
                state.source = merge_source(match, state.source)
        return x + _scaled(self, 2, self.mlp(self.norm2(x)))


def _attention(attn: nn.Layer, x, size, wants_metric: bool):
    """Attention over tokens of different sizes; returns it with the merging metric (mean of the keys)."""
    tokens, heads = x.shape[1], attn.num_heads
    qkv = attn.qkv(x)
    metric = None
    if _is_folded(attn):
        width = attn._tome_folded
        parts = [width] * 3 + [qkv.shape[-1] - 3 * width] * wants_metric
        q, k, v, *metric = qkv.split(parts, axis=-1)
        metric = metric[0] if metric else None
    else:
        q, k, v = qkv.split(3, axis=-1)
    by_head = [0, tokens, heads, q.shape[-1] // heads]
    q, k, v = q.reshape(by_head), k.reshape(by_head), v.reshape(by_head)
    if _has(attn, "q_norm"):
        q, k = attn.q_norm(q), attn.k_norm(k)
    if wants_metric and metric is None:
        metric = k.mean(2)
    if not _is_folded(attn):
        q = q * attn.scale
    scores = q.transpose([0, 2, 1, 3]).matmul(k.transpose([0, 2, 1, 3]), transpose_y=True)
    if size is not None:
        scores = scores + fresh(size).log().reshape([-1, 1, 1, tokens])
    weights = _optional(attn, "attn_drop", F.softmax(scores, axis=-1))
    x = weights.matmul(v.transpose([0, 2, 1, 3])).transpose([0, 2, 1, 3])
    return _optional(attn, "proj_drop", attn.proj(x.reshape([0, tokens, -1]))), metric


def _scaled(block: nn.Layer, branch: int, x):
    """What a block does to a branch before adding it: LayerScale under either of its names, drop path."""
    x = _optional(block, f"ls{branch}", x)
    gamma = getattr(block, f"gamma_{branch}", None)
    if gamma is not None:
        x = gamma * x
    return _optional(block, f"drop_path{branch}", _optional(block, "drop_path", x))


def _optional(layer: nn.Layer, name: str, x):
    return getattr(layer, name)(x) if _has(layer, name) else x


def _has(layer: nn.Layer, name: str) -> bool:
    return getattr(layer, name, None) is not None


def _is_folded(attn: nn.Layer) -> bool:
    return hasattr(attn, "_tome_folded")


def _original(layer: nn.Layer) -> super:
    """The layer with the methods of its own class (a bound method is what Paddle's tracing follows)."""
    return super(type(layer).__bases__[0], layer)


def _mix(layer: nn.Layer, patch: type) -> None:
    """Put `patch` before the layer's own class."""
    original = type(layer)
    layer.__class__ = type(f"ToMe{original.__name__}", (patch, original), {"__doc__": patch.__doc__})


def _check(model: nn.Layer) -> None:
    name = type(model).__name__
    missing = [part for part in ("blocks", "pos_embed") if not _has(model, part)]
    if missing:
        raise PatchError(f"cannot patch {name}: it has no {' and no '.join(missing)}")
    for index, block in enumerate(model.blocks):
        for path in (
            "norm1",
            "norm2",
            "mlp",
            "attn",
            "attn.qkv",
            "attn.proj",
            "attn.num_heads",
            "attn.scale",
        ):
            part = block
            for step in path.split("."):
                part = getattr(part, step, None)
            if part is None:
                raise PatchError(f"cannot patch {name}: block {index} has no {path}")
        for bias in ("relative_position_bias_table", "rel_pos_bias", "relative_position_index"):
            if _has(block.attn, bias):
                raise PatchError(f"cannot patch {name}: attention with {bias} ties tokens to fixed positions")
