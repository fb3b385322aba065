"""Position embeddings for another image size."""

from __future__ import annotations

import math

import numpy as np

from tome_core.errors import CheckpointError

_A = -0.75  # the cubic's free parameter in torch's and Paddle's `interpolate` (Pillow's is -0.5)


def resize_position_embedding(pos_embed: np.ndarray, protected: int, patches: int) -> np.ndarray:
    """Resample the patch positions of a square grid to another square grid.

    The convention is that of `interpolate(mode="bicubic", align_corners=False)` without anti-aliasing, in
    Paddle and in torch alike: what PASSL, DeiT, MAE and SWAG do when they fine-tune at another resolution.
    (timm anti-aliases, torchvision aligns corners, Google's JAX code is bilinear; all differ slightly.)

    Args:
        pos_embed: float [1, protected + old patches, channels], the special tokens first.
        protected: number of special tokens (class, distillation); their positions are kept as they are.
        patches: number of patches wanted, a square number.

    Returns:
        float32 [1, protected + patches, channels].

    Raises:
        CheckpointError: either number of patches is not a square.
    """
    old, new = grid_side(pos_embed.shape[1] - protected), grid_side(patches)
    pos_embed = np.asarray(pos_embed, np.float32)
    if old == new:
        return pos_embed
    matrix = _cubic_matrix(old, new)
    grid = pos_embed[0, protected:].reshape(old, old, -1).astype(np.float64)
    grid = np.einsum("yi,xj,ijc->yxc", matrix, matrix, grid, optimize=True).reshape(1, patches, -1)
    return np.concatenate([pos_embed[:, :protected], grid.astype(np.float32)], axis=1)


def grid_side(patches: int) -> int:
    """Side of a square grid of `patches`. Raises CheckpointError if they form no square."""
    side = math.isqrt(max(patches, 0))
    if patches < 1 or side * side != patches:
        raise CheckpointError(f"{patches} patch positions form no square; images must be square")
    return side


def _cubic_matrix(old: int, new: int) -> np.ndarray:
    """[new, old]: each row holds the weights of the old samples in a new one; the border is repeated."""
    matrix = np.zeros((new, old))
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    for offset in (-1, 0, 1, 2):
        sample = np.floor(centres).astype(int) + offset
        np.add.at(matrix, (np.arange(new), sample.clip(0, old - 1)), _cubic(np.abs(centres - sample)))
    return matrix


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys's cubic convolution kernel (1981) at distances from 0 to 2."""
    near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    far = _A * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)
