"""Apply Token Merging to a Vision Transformer that already exists.

`apply_patch` keeps the model object, its weights and its state-dict keys. It changes two classes in place:

    the model   `r` becomes a property; every forward starts with fresh sizes
    its blocks  attention is proportional to token size, and tokens merge between attention and MLP;
                the last block hands on what the model needs to pool patches by their size

A block that has nothing to merge and no sizes to respect runs its original forward, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import paddle
from paddle import nn

from tome_core.attention import attend, is_folded, scaled
from tome_core.errors import PatchError
from tome_core.faithful import check_block
from tome_core.layout import Layout, measure_layout
from tome_core.matching import Match, candidate_scores, select
from tome_core.merging import merge_source, merge_wavg, unmerge
from tome_core.ops import constant, fresh
from tome_core.schedule import RSpec, Schedule, make_schedule
from tome_core.structure import BlockParts, block_parts, find_blocks, has, image_shape, kind


@dataclass
class ToMeState:
    """What a patched model and its blocks share.

    `sizes` and `sources` belong to the latest forward: entry i enters block i, the last one leaves the model.
    An entry per block, rather than one that changes, lets recomputation repeat a block in the backward pass.
    """

    layout: Layout
    depth: int
    prop_attn: bool
    trace_source: bool
    r: RSpec = 0
    schedule: Schedule = field(default_factory=lambda: Schedule((), (), 0))
    sizes: list[paddle.Tensor | None] = field(default_factory=list)
    sources: list[paddle.Tensor | None] = field(default_factory=list)
    tap: Callable[[str, paddle.Tensor], paddle.Tensor] | None = None
    """Gets name and value of each tensor of `schedule.tap_names`; its answer takes the value's place."""

    @property
    def class_token(self) -> bool:
        return self.layout.special > 0

    @property
    def distill_token(self) -> bool:
        return self.layout.special > 1

    @property
    def tokens(self) -> int:
        """Tokens entering block 0."""
        return self.layout.tokens

    @property
    def protected(self) -> int:
        return self.layout.special

    @property
    def size(self) -> paddle.Tensor | None:
        """float32 [batch, tokens left, 1]; None: every token is one patch."""
        return self.sizes[-1] if self.sizes else None

    @property
    def source(self) -> paddle.Tensor | None:
        """int32 [batch, tokens of block 0], the final group of each; None before a forward that traces it."""
        return self.sources[-1] if self.sources else None

    def start(self) -> None:
        self.sizes, self.sources = [None] * (self.depth + 1), [None] * (self.depth + 1)

    def __getstate__(self) -> dict:
        """Copies leave out the tensors of a forward: Paddle cannot copy those that carry gradients."""
        return {**self.__dict__, "sizes": [], "sources": [], "tap": None}


def apply_patch(
    model: nn.Layer,
    prop_attn: bool = True,
    trace_source: bool = False,
    image_size: int | tuple[int, int] | None = None,
) -> nn.Layer:
    """Patch `model` in place and return it; it merges nothing until `model.r` is set.

    prop_attn: add log(size) over the keys in attention (paper, section 3, equation 1). Right for supervised
    models off the shelf; MAE models that were not trained with Token Merging do better without.
    trace_source: keep `model.tome.source`, int32 [batch, tokens], the group each input token ended in.
    image_size: height and width in pixels, for models that do not tell.

    Then `model.r = 16`, a list, or `(16, -1.0)`; see `tome_core.schedule.parse_r`. Patching again only
    changes the options. A program that `paddle.jit.to_static` has traced keeps those it was traced with.

    Any Vision Transformer of pre-norm blocks (`norm1`, `attn.qkv`, `attn.proj`, `norm2`, `mlp`, with or
    without LayerScale, query and key norms, drop path) will do, of whatever class; what the model does with
    its tokens is measured first. Raises PatchError, with the reason, if the patch would not be faithful to
    the model; the model is then as it was.
    """
    if isinstance(model, _PatchedModel):
        state = model.tome
        if (prop_attn, trace_source) != (state.prop_attn, state.trace_source):
            _refuse_if_traced(model)
        state.prop_attn, state.trace_source = prop_attn, trace_source
        return model
    try:
        blocks, parts, layout = _examine(model, image_size)
    except PatchError as error:
        raise PatchError(f"cannot patch {type(model).__name__}: {error}") from error.__cause__
    model.tome = ToMeState(layout, len(blocks), prop_attn, trace_source)
    for index, (block, its_parts) in enumerate(zip(blocks, parts, strict=True)):
        block._tome, block._tome_index, block._tome_parts = model.tome, index, its_parts
        block.__class__ = _mixed(_PatchedBlock, type(block))
    model.__class__ = _mixed(_PatchedModel, type(model))
    model.r = 0
    return model


def _examine(model, image_size) -> tuple[tuple[nn.Layer, ...], list[BlockParts], Layout]:
    if not isinstance(model, nn.Layer):
        raise PatchError("it is not a paddle.nn.Layer")
    if has(model, "tome") or has(model, "r") or has(model, "_tome_info"):
        raise PatchError("it has an attribute tome or r already, as other Token Merging patches add")
    if "forward" in vars(model):
        raise PatchError("its forward is wrapped (to_static, recompute): patch the model before wrapping it")
    blocks = find_blocks(model)
    parts = []
    for index, block in enumerate(blocks):
        if isinstance(block, _PatchedBlock):
            raise PatchError("its blocks are patched already, as part of another model")
        parts.append(_of_block(index, block_parts, block))
    layout = measure_layout(model, blocks, image_shape(model, image_size))
    seen = set()
    for index, (block, its_parts) in enumerate(zip(blocks, parts, strict=True)):
        if kind(block) not in seen:
            _of_block(index, check_block, block, its_parts, layout.tokens, layout.channels)
            seen.add(kind(block))
    return blocks, parts, layout


def _of_block(index: int, examine, *arguments):
    try:
        return examine(*arguments)
    except PatchError as error:
        raise PatchError(f"block {index} {error}") from error.__cause__


class _PatchedModel:
    """Modifies a Vision Transformer: adds `r`, resets the token sizes."""

    @property
    def r(self) -> RSpec:
        return self.tome.r

    @r.setter
    def r(self, r: RSpec) -> None:
        state = self.tome
        schedule = make_schedule(r, state.depth, state.tokens, state.protected)
        if schedule != state.schedule:
            _refuse_if_traced(self)
        state.r, state.schedule = r, schedule

    def forward(self, x):
        state = self.tome
        state.start()
        out = _original(self).forward(x)
        if state.trace_source and state.source is None:  # nothing merged: every token is its own group
            identity = paddle.arange(state.tokens, dtype="int32")
            state.sources = [identity.expand([x.shape[0], state.tokens])]
        return out


class _PatchedBlock:
    """Modifies a pre-norm block: proportional attention, then merging, then the MLP."""

    def forward(self, x):
        state, parts, index = self._tome, self._tome_parts, self._tome_index
        _check_tokens(state, index, x)
        r, size, source = state.schedule.r[index], state.sizes[index], state.sources[index]
        if index == 0:
            x = _tapped(state, "embed", x)
        plain = r == 0 and (size is None or not state.prop_attn)
        if plain and not is_folded(self.attn) and state.tap is None:
            x = _original(self).forward(x)
        else:
            wanted = size if state.prop_attn else None
            normed = _tapped(state, f"block{index}.norm1", self.norm1(x))
            attended, metric = attend(self.attn, parts, normed, wanted, wants_metric=r > 0)
            x = _tapped(state, f"block{index}.attended", x + scaled(self, parts, 0, attended))
            if r > 0:
                x, size, source = _merge(state, index, metric, x, size, source, is_folded(self.attn))
            normed = _tapped(state, f"block{index}.norm2", self.norm2(x))
            x = _tapped(state, f"block{index}.tokens", x + scaled(self, parts, 1, self.mlp(normed)))
        _remember(state, index, size, source)
        return x if index + 1 < state.depth else _for_readout(state.layout, x, size, source)


@paddle.jit.not_to_static
def _merge(state: ToMeState, index: int, metric, x, size, source, unit_length: bool):
    tokens = state.class_token, state.distill_token
    scores = _tapped(state, f"block{index}.scores", candidate_scores(metric, *tokens, unit_length))
    match = select(scores, state.schedule.r[index], *tokens)
    match = replace(match, label=_tapped(state, f"block{index}.label", match.label))
    x, size = merge_wavg(match, x, size)
    size = _tapped(state, f"block{index}.size", size)
    x = _tapped(state, f"block{index}.merged", x)
    if state.trace_source or state.layout.readout == "tokens":
        source = merge_source(match, source)
    return x, size, source


@paddle.jit.not_to_static
def _tapped(state: ToMeState, name: str, x):
    return x if state.tap is None else state.tap(name, x)


@paddle.jit.not_to_static
def _for_readout(layout: Layout, x, size, source):
    """Tokens from which the rest of the model computes what it would from every patch's own token.

    A group counts as often as it has patches: `sum(x * size)`, and `sum(x * size) / patches` for a mean.
    Where a model reads patch tokens in another way, each patch gets the token of its group.
    """
    if size is None or layout.readout == "special":
        return x
    left, patches = x.shape[1] - layout.special, layout.tokens - layout.special
    if layout.readout == "tokens":
        return unmerge(Match(source.astype("int64"), tuple(range(x.shape[1]))), x)
    if layout.readout == "mean":  # the model divides by the tokens left
        size = fresh(size) * constant([1.0] * layout.special + [left / patches] * left, [1, -1, 1])
    return x * (size if size.dtype == x.dtype else size.astype(x.dtype))


@paddle.jit.not_to_static
def _check_tokens(state: ToMeState, index: int, x) -> None:
    if x.shape[1] != state.schedule.tokens[index]:
        raise PatchError(
            f"the model was patched for {state.tokens} tokens; block {index} got {x.shape[1]}"
            f" instead of {state.schedule.tokens[index]}: patch it at the image size it runs at"
        )


@paddle.jit.not_to_static
def _remember(state: ToMeState, index: int, size, source) -> None:
    state.sizes[index + 1], state.sources[index + 1] = size, source


def _refuse_if_traced(model: nn.Layer) -> None:
    forward = vars(model).get("forward")
    if hasattr(forward, "get_traced_count") and forward.get_traced_count() > 0:
        raise PatchError(
            "the model was traced by to_static with the r and options it had; call model.forward.rollback(), "
            "change them, and trace it again"
        )


def _original(layer: nn.Layer) -> super:
    """The layer with the methods of its own class (a bound method is what Paddle's tracing follows)."""
    return super(type(layer).__bases__[0], layer)


@functools.cache
def _mixed(patch: type, original: type) -> type:
    """A class with `patch` before the layer's own class."""
    return type(f"ToMe{original.__name__}", (patch, original), {"__doc__": patch.__doc__})
