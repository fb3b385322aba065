"""What a Vision Transformer of any origin is made of: its blocks, the parts of a block, its image size.

Recognition goes by names and shapes, never by class. It only proposes: whether a model really computes what
the names suggest is measured in `tome_core.layout` and `tome_core.faithful`. Functions raise PatchError with
the reason, which `apply_patch` completes with the model's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from paddle import nn

from tome_core.errors import PatchError

_HEADS = ("num_heads", "n_heads", "heads", "num_attention_heads")
_SCALES = ("scale", "scales")
_ATTENTION_DROPOUTS = ("attn_drop", "attn_dropout")
_PROJECTION_DROPOUTS = ("proj_drop", "proj_dropout")
_RELATIVE_BIASES = ("relative_position_bias_table", "relative_position_index", "rel_pos_bias", "rel_pos_h")


@dataclass(frozen=True)
class BlockParts:
    """Where a pre-norm block keeps what its replacement needs; None is a part the block does without.

    Of a pair, the first belongs to the attention branch and the second to the MLP branch.
    """

    num_heads: int
    scale: float  # of the products of queries and keys
    attn_drop: str | None
    proj_drop: str | None
    qk_norm: bool
    layer_scale: tuple[str | None, str | None]  # a layer, or a parameter to multiply with
    drop_path: tuple[str | None, str | None]


def has(layer: nn.Layer, name: str) -> bool:
    return getattr(layer, name, None) is not None


def find_blocks(model: nn.Layer) -> tuple[nn.Layer, ...]:
    """The transformer blocks in order: `model.blocks`, or else the only list of blocks there is."""
    _refuse_position_bound_attention(model)
    if has(model, "blocks"):
        blocks = _flat(model.blocks)
    else:
        lists = list(_lists_of_blocks(model))
        if len(lists) > 1:
            names = ", ".join(name for name, _ in lists)
            raise PatchError(f"it has {len(lists)} lists of blocks (stages, towers), not one: {names}")
        blocks = lists[0][1] if lists else ()
    if not blocks:
        raise PatchError("it has no list of transformer blocks")
    return blocks


def block_parts(block: nn.Layer) -> BlockParts:
    """The parts of one block; a parameter or layer whose part in it is unknown is refused."""
    for path in ("norm1", "norm2", "mlp", "attn", "attn.qkv", "attn.proj"):
        part = block
        for step in path.split("."):
            part = getattr(part, step, None)
        if not isinstance(part, nn.Layer):
            raise PatchError(f"has no {path}")
    if "forward" in vars(block) or "forward" in vars(block.attn):
        raise PatchError("has a wrapped forward (recompute, to_static): patch the model before wrapping it")
    attn = block.attn
    parts = BlockParts(
        num_heads=_num_heads(attn),
        scale=_scale(attn),
        attn_drop=_first(attn, _ATTENTION_DROPOUTS),
        proj_drop=_first(attn, _PROJECTION_DROPOUTS),
        qk_norm=has(attn, "q_norm") and has(attn, "k_norm"),
        layer_scale=tuple(_first(block, (f"ls{n}", f"gamma_{n}")) for n in (1, 2)),
        drop_path=tuple(_first(block, (f"drop_path{n}", "drop_path")) for n in (1, 2)),
    )
    qk_norms = ("q_norm", "k_norm") if parts.qk_norm else ()
    _refuse_unknown(attn, {"qkv", "proj", parts.attn_drop, parts.proj_drop, *qk_norms}, "attn.")
    _refuse_unknown(block, {"norm1", "norm2", "attn", "mlp", *parts.layer_scale, *parts.drop_path}, "")
    return parts


def image_shape(model: nn.Layer, image_size: int | tuple[int, int] | None) -> tuple[int, int, int]:
    """(channels, height, width) of the images `model` takes, from what it says of itself."""
    layers = model.sublayers(include_self=True)
    conv = next((layer for layer in layers if isinstance(layer, nn.Conv2D)), None)
    channels = conv.weight.shape[1] * conv._groups if conv is not None else 3
    holders = [holder for layer in layers for holder in (layer, getattr(layer, "config", None))]
    told = [getattr(holder, name, None) for holder in holders for name in ("img_size", "image_size")]
    positions = next((layer.pos_embed for layer in layers if has(layer, "pos_embed")), None)
    for size in (image_size, *told, _size_from_positions(positions, conv)):
        if isinstance(size, int) and not isinstance(size, bool):
            return channels, size, size
        if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) for n in size):
            return channels, *size
    raise PatchError("it does not tell its image size; pass image_size= to apply_patch")


def kind(block: nn.Layer) -> tuple:
    """Equal for blocks that run the same code with the same settings, whatever their weights."""
    return tuple(
        (path, type(layer), _settings(layer)) for path, layer in block.named_sublayers(include_self=True)
    )


def _settings(layer: nn.Layer) -> tuple:
    """Numbers and flags; dropout rates do not count, as faithfulness is measured in evaluation."""
    return tuple(
        (name, value)
        for name, value in sorted(vars(layer).items())
        if isinstance(value, bool | int | float) and not name.startswith("_")
        if name not in ("p", "training") and "drop" not in name
    )


def _refuse_position_bound_attention(model: nn.Layer) -> None:
    for path, layer in model.named_sublayers(include_self=True):
        where = path or "the model"
        if has(layer, "shift_size"):
            raise PatchError(f"{where} attends within windows, which merged tokens do not fit into")
        for bias in _RELATIVE_BIASES:
            if has(layer, bias):
                raise PatchError(f"{where} has {bias}: merged tokens have no relative position")
        if has(layer, "qkv") and getattr(layer, "window_size", None):
            raise PatchError(f"{where} attends within windows, which merged tokens do not fit into")


def _lists_of_blocks(layer: nn.Layer, path: str = "") -> Iterator[tuple[str, tuple[nn.Layer, ...]]]:
    for name, child in layer.named_children():
        blocks = _flat(child) if isinstance(child, nn.LayerList | nn.Sequential) else ()
        if blocks and all(has(block, "attn") and has(block, "mlp") for block in blocks):
            yield path + name, blocks
        else:
            yield from _lists_of_blocks(child, f"{path}{name}.")


def _flat(blocks) -> tuple[nn.Layer, ...]:
    """A list of blocks, or of lists of blocks (chunks, padded with identities) -> the blocks."""
    if isinstance(blocks, nn.LayerList | nn.Sequential | list | tuple):
        return tuple(block for part in blocks for block in _flat(part))
    if not isinstance(blocks, nn.Layer) or type(blocks).__name__ == "Identity":
        return ()
    return (blocks,)


def _first(layer: nn.Layer, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if has(layer, name)), None)


def _num_heads(attn: nn.Layer) -> int:
    name = _first(attn, _HEADS)
    heads = getattr(attn, name) if name else None
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1:
        raise PatchError("does not tell its number of heads (attn.num_heads)")
    weight = getattr(attn.qkv, "weight", None)
    if weight is None or len(weight.shape) != 2 or weight.shape[1] % (3 * heads):
        raise PatchError(f"has an attn.qkv that does not give queries, keys and values for {heads} heads")
    return heads


def _scale(attn: nn.Layer) -> float:
    name = _first(attn, _SCALES)
    scale = getattr(attn, name) if name else (attn.qkv.weight.shape[1] // 3 // _num_heads(attn)) ** -0.5
    if not isinstance(scale, int | float):  # numpy's floats are floats; tensors are learned temperatures
        raise PatchError(f"has an attn.{name} that is not a number")
    return float(scale)


def _refuse_unknown(layer: nn.Layer, known: set[str | None], prefix: str) -> None:
    for name, parameter in layer._parameters.items():
        if parameter is not None and name not in known:
            raise PatchError(f"has a parameter {prefix}{name} that the replacement would not use")
    for name, part in layer._sub_layers.items():
        if part is not None and name not in known and not _harmless(part):
            raise PatchError(
                f"has a layer {prefix}{name} ({type(part).__name__}) that the replacement would not use"
            )


def _harmless(layer: nn.Layer) -> bool:
    """Without state and randomness; what it computes, if anything, is measured."""
    rates = (getattr(layer, name, None) for name in ("p", "drop_prob", "drop_rate"))
    return not layer.parameters() and not layer.buffers() and not any(rates)


def _size_from_positions(positions, conv: nn.Conv2D | None) -> tuple[int, int] | None:
    """A square image, from the number of position embeddings and the stride of the patch embedding."""
    shape = getattr(positions, "shape", ())
    if conv is None or len(shape) != 3:
        return None
    for special in range(3):
        side = math.isqrt(max(0, shape[1] - special))
        if side * side == shape[1] - special:
            return side * conv._stride[0], side * conv._stride[1]
    return None
