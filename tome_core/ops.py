"""Two small operators that every static-shape graph here is built with."""

from __future__ import annotations

import numpy as np
import paddle


def constant(values, shape: list[int]) -> paddle.Tensor:
    """A float32 constant of this shape, written into a traced graph as data."""
    return paddle.to_tensor(np.asarray(values, dtype="float32").reshape(shape))


def fresh(x: paddle.Tensor) -> paddle.Tensor:
    """x in memory of its own.

    Paddle Inference with oneDNN lets an elementwise operator overwrite its input even where a layout
    conversion shares that memory with a tensor that is still needed. So log, reciprocal, division and the
    like must never see a tensor that anything else reads: they take `fresh(x)` instead. `assign` would be
    optimised away; adding zero is not.
    """
    return x + 0.0
