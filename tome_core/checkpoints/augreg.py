"""Google's `.npz` files (ViT, AugReg): names and axes of the JAX model to ours.

Dense kernels are [in, out] already; attention kernels have an axis of heads; the patch kernel is HWIO.
Source: google-research/vision_transformer, `vit_jax/models_vit.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tome_core.checkpoints.limits import shown
from tome_core.errors import CheckpointError

_ATTENTION = "MultiHeadDotProductAttention_1"
_BLOCK = re.compile(r"Transformer/encoderblock_([0-9]{1,4})/(.+)/(scale|kernel|bias)")
_LAYERS = {
    "LayerNorm_0": "norm1",
    f"{_ATTENTION}/out": "attn.proj",
    "LayerNorm_2": "norm2",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
}
_OUTSIDE = {
    "cls": "cls_token",
    "embedding/bias": "patch_embed.proj.bias",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "pre_logits/kernel": "head0.weight",
    "pre_logits/bias": "head0.bias",
    "head/kernel": "head.weight",
    "head/bias": "head.bias",
}


def from_augreg(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """(tensors under our names, Linear weights [in, out]; number of attention heads).

    Raises CheckpointError for names or shapes that this family of files does not have.
    """
    found: dict[str, np.ndarray] = {}
    parts: dict[str, dict[str, np.ndarray]] = {}  # of query, key and value, which our qkv joins
    heads = set()
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if name in _OUTSIDE:
            found[_OUTSIDE[name]] = tensor
        elif name == "embedding/kernel":
            found["patch_embed.proj.weight"] = _ranked(name, tensor, 4).transpose(3, 2, 0, 1)
        elif block and block[2] in _LAYERS:
            ours = f"blocks.{block[1]}.{_LAYERS[block[2]]}.{'bias' if block[3] == 'bias' else 'weight'}"
            if ours.endswith("attn.proj.weight"):  # [heads, width, C]
                tensor = _ranked(name, tensor, 3).reshape(-1, tensor.shape[-1])
            found[ours] = tensor
        elif block and block[2].removeprefix(f"{_ATTENTION}/") in ("query", "key", "value"):
            rank = 2 if block[3] == "bias" else 3  # [heads, width] or [C, heads, width]
            heads.add(_ranked(name, tensor, rank).shape[-2])
            joined = tensor.reshape(*tensor.shape[:-2], -1)
            kind = "bias" if block[3] == "bias" else "weight"
            key = f"blocks.{block[1]}.attn.qkv.{kind}"
            parts.setdefault(key, {})[block[2].rpartition("/")[2]] = joined
        else:
            raise CheckpointError(f"it holds {shown(name, 80)}, which no plain ViT has; use another file")
    for name, part in parts.items():
        if len(part) < 3 or len({p.shape for p in part.values()}) > 1:
            raise CheckpointError(f"its query, key and value make no {name}; use the original file")
        found[name] = np.concatenate([part["query"], part["key"], part["value"]], axis=-1)
    if len(heads) != 1:
        raise CheckpointError("its blocks differ in their number of heads; use the original file")
    return found, heads.pop()


def _ranked(name: str, tensor: np.ndarray, rank: int) -> np.ndarray:
    if tensor.ndim != rank:
        raise CheckpointError(f"{shown(name, 80)} has {tensor.ndim} axes, not {rank}; use the original file")
    return tensor
