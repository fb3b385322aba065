"""Linear weights are [out, in] in torch and [in, out] in Paddle: tell which, and transpose once.

A square weight (`attn.proj` always is) tells nothing and passes every check of shapes, so the decision is
taken for the whole file from the weights that do tell, and must be unanimous.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tome_core.errors import CheckpointError

TORCH, PADDLE = "[out, in]", "[in, out]"
OF_CONTAINER = {"torch-zip": TORCH, "torch-legacy": TORCH, "pdparams": PADDLE}  # safetensors serves both


def linear_order(tensors: Mapping[str, np.ndarray]) -> str:
    """`TORCH` or `PADDLE`, from all Linear weights that are not square and whose number of outputs is known.

    Raises CheckpointError if they disagree, or if none tells.
    """
    told: dict[str, str] = {}  # order: the first key that shows it
    for name, weight in tensors.items():
        outputs = _outputs(name, weight, tensors)
        if outputs is not None and weight.shape[0] != weight.shape[1] and outputs in weight.shape:
            told.setdefault(PADDLE if weight.shape[1] == outputs else TORCH, name)
    if len(told) == 1:
        return next(iter(told))
    if told:
        raise CheckpointError(
            f"some of its Linear weights are {TORCH} ({told[TORCH]}) and some {PADDLE} ({told[PADDLE]}); "
            "it was converted by halves, use the original file"
        )
    raise CheckpointError("none of its Linear weights has the shape of a ViT's; use the original file")


def paddle_order(tensors: Mapping[str, np.ndarray], order: str) -> dict[str, np.ndarray]:
    """The tensors with every Linear weight [in, out]."""
    if order == PADDLE:
        return dict(tensors)
    return {name: t.T if _is_linear(name, t) else t for name, t in tensors.items()}


def _is_linear(name: str, tensor: np.ndarray) -> bool:
    return tensor.ndim == 2 and name.endswith(".weight")


def _outputs(name: str, weight: np.ndarray, tensors: Mapping[str, np.ndarray]) -> int | None:
    """Number of outputs of the Linear layer, by its bias; `qkv`, which may have none, by the width."""
    if not _is_linear(name, weight):
        return None
    bias = tensors.get(name.removesuffix("weight") + "bias")
    if bias is not None:
        return bias.size
    return 3 * tensors["pos_embed"].shape[-1] if name.endswith("attn.qkv.weight") else None
