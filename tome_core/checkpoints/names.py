"""Key names: which are known, how torchvision's and SWAG's become ours, and what our models do not have."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import numpy as np

from tome_core.checkpoints.limits import shown
from tome_core.errors import CheckpointError

_OURS = re.compile(
    r"cls_token|dist_token|pos_embed"
    r"|(patch_embed\.proj|norm|fc_norm|head0|head|head_dist"
    r"|blocks\.[0-9]{1,4}\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2))\.(weight|bias)"
)
_TORCHVISION_BLOCK = re.compile(r"encoder\.layers\.(?:encoder_)?layer_([0-9]{1,4})\.(.+)")
_RENAMES = (  # prefix there, prefix here; within a block of torchvision's or SWAG's
    ("ln_1.", "norm1."),
    ("self_attention.in_proj_", "attn.qkv."),
    ("self_attention.out_proj.", "attn.proj."),
    ("ln_2.", "norm2."),
    ("mlp.linear_1.", "mlp.fc1."),
    ("mlp.linear_2.", "mlp.fc2."),
    ("mlp.0.", "mlp.fc1."),  # since torchvision 0.13, linear_1 and linear_2 before
    ("mlp.3.", "mlp.fc2."),
)
_OUTSIDE = (  # the same, outside of blocks
    ("class_token", "cls_token"),
    ("conv_proj.", "patch_embed.proj."),
    ("encoder.pos_embedding", "pos_embed"),
    ("encoder.ln.", "norm."),
    ("heads.head.", "head."),
    ("heads.pre_logits.", "head0."),
    ("head.layers.head.", "head."),
    ("head.layers.pre_logits.", "head0."),
    ("pre_logits.fc.", "head0."),  # timm before 0.8
)
_DECODER = re.compile(r"decoder_.+|mask_token")

# What a key says about a model that ours cannot compute. In the order of how much they explain.
_FOREIGN = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"relative_position|rel_pos|\.attn\.[qv]_bias", "relative positions or BEiT's split biases"),
        (r"\.ls[12]\.|\.gamma_[12]$", "LayerScale"),
        (r"\.[qk]_norm\.", "normalised queries and keys (qk-norm)"),
        (r"^reg_token$|^register_tokens$", "register tokens"),
        (r"^norm_pre\.|^ln_pre\.", "a LayerNorm before the blocks"),
        (r"^attn_pool\.|MAPHead", "attention pooling"),
        (r"^patch_embed\.norm\.", "a LayerNorm after the patch embedding"),
        (r"^patch_embed\.(backbone|conv)|^conv_proj\.[^wb]|^conv_root|^block[0-9]+/", "a convolutional stem"),
        (r"\.mlp\.(w12|w3|fc1_g|fc1_x)\.|\.mlp\.gate", "gated MLPs"),
        (r"\.(attn|mlp)\.norm\.", "a LayerNorm inside attention or MLP"),
        (r"^head\.0\.", "a linear-probe head with batch normalisation"),
        (r"^layers\.[0-9]+\.(blocks|downsample)\.", "stages of windows (Swin)"),
    )
)


def torchvision_to_ours(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename torchvision's, SWAG's and old timm's keys; others stay. The arrays are as they were.

    Raises CheckpointError if two keys become one.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        block = _TORCHVISION_BLOCK.fullmatch(name)
        prefix, rest = (f"blocks.{block[1]}.", block[2]) if block else ("", name)
        for theirs, ours in _RENAMES if block else _OUTSIDE:
            if rest.startswith(theirs):
                rest = ours + rest.removeprefix(theirs)
                break
        if prefix + rest in found:
            raise CheckpointError(f"it holds {shown(prefix + rest, 80)} twice; use the original file")
        found[prefix + rest] = tensor
    return found


def split_decoder(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], bool]:
    """(the tensors without those of an MAE's decoder, whether there was a decoder)."""
    if "decoder_pred.weight" not in tensors:
        return dict(tensors), False
    return {name: tensor for name, tensor in tensors.items() if not _DECODER.fullmatch(name)}, True


def check_known(names: Collection[str]) -> None:
    """Raises CheckpointError that names the keys that none of our models has."""
    strange = [name for name in names if not _OURS.fullmatch(name)]
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        listed = ", ".join(shown(name, 60) for name in strange[:3])
        raise CheckpointError(f"it holds what no plain ViT has: {listed}{more}; use another file")


def refuse_foreign(names: Collection[str]) -> None:
    """Raises CheckpointError if a key belongs to an architecture that is known and not supported."""
    for pattern, what in _FOREIGN:
        for name in names:
            if pattern.search(name):
                raise CheckpointError(
                    f"its model has {what} ({shown(name, 60)}), which the models here do not; "
                    "use a plain ViT, DeiT or MAE file"
                )
