"""What names and shapes say about a file's model. Works on our names, with Linear weights in any order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tome_core.checkpoints.limits import shown
from tome_core.checkpoints.resize import grid_side
from tome_core.errors import CheckpointError

_NEEDED = ("pos_embed", "cls_token", "patch_embed.proj.weight", "blocks.0.mlp.fc1.bias")


def check_arrays(tensors: Mapping[str, np.ndarray]) -> None:
    """Raises CheckpointError for tensors that are no floating-point numbers."""
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise CheckpointError(f"{shown(name, 80)} holds {tensor.dtype}; use a floating-point file")
        if tensor.size == 0:
            raise CheckpointError(f"{shown(name, 80)} is empty ({list(tensor.shape)}); use the original file")


def check_structure(ours: Mapping[str, np.ndarray]) -> None:
    """Check what `model_options` and `linear_order` rely on; the model itself is compared with the rest.

    Raises CheckpointError.
    """
    missing = [name for name in _NEEDED if name not in ours]
    if missing:
        raise CheckpointError(f"it lacks {', '.join(missing)}, which every ViT with a class token has")
    patch, positions = ours["patch_embed.proj.weight"], ours["pos_embed"]
    if positions.ndim != 3 or positions.shape[0] != 1:
        raise CheckpointError(f"pos_embed is {list(positions.shape)}, not [1, tokens, channels]")
    if patch.ndim != 4 or patch.shape[1] != 3 or patch.shape[2] != patch.shape[3]:
        raise CheckpointError(
            f"patch_embed.proj.weight is {list(patch.shape)}, not [channels, 3, patch, patch]; "
            "only square patches of RGB images are supported"
        )
    blocks = {name.split(".")[1] for name in ours if name.startswith("blocks.")}
    absent = next((i for i in range(len(blocks)) if str(i) not in blocks), None)
    if absent is not None:
        raise CheckpointError(f"it has {len(blocks)} blocks but none numbered {absent}; use the whole file")


def model_options(tensors: Mapping[str, np.ndarray], paddle_class: bool) -> dict[str, Any]:
    """The fields of `ViTConfig` that follow from the tensors.

    paddle_class: whether PASSL's or PaddleClas's own class wrote the file. Raises CheckpointError.
    """
    width, distilled = tensors["pos_embed"].shape[2], "dist_token" in tensors
    patch_size = tensors["patch_embed.proj.weight"].shape[2]
    patches = tensors["pos_embed"].shape[1] - 1 - distilled
    if patches > 1 and math.isqrt(patches) ** 2 != patches and math.isqrt(patches + 1) ** 2 == patches + 1:
        raise CheckpointError("its class token has no position (no_embed_class); use a plain ViT file")
    qkv_bias = "blocks.0.attn.qkv.bias" in tensors
    head, head0 = tensors.get("head.bias"), tensors.get("head0.bias")
    changes = {
        "image_size": grid_side(patches) * patch_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        "mlp_ratio": _ratio(tensors["blocks.0.mlp.fc1.bias"].size, width),
        "qkv_bias": qkv_bias,
        # Both are defaults of PASSL's and PaddleClas's class; their models set both or neither.
        "epsilon": 1e-5 if paddle_class and not qkv_bias else 1e-6,
        "distilled": distilled,
        "global_pool": "fc_norm.weight" in tensors,
        "representation_size": None if head0 is None else head0.size,
    }
    return changes if head is None else changes | {"num_classes": head.size}


def _ratio(hidden: int, width: int) -> float:
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def is_odd_small(changes: Mapping[str, Any]) -> bool:
    """PaddleClas's ViT_small_patch16_224, timm's until 2021: it scales scores by the width of all heads."""
    small = {"embed_dim": 768, "depth": 8, "patch_size": 16, "mlp_ratio": 3.0, "qkv_bias": False}
    return all(changes[name] == value for name, value in small.items())
