"""Two small operators that every static-shape graph here is built with, and how functions of them run."""

from __future__ import annotations

import functools

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


def exactly(function):
    """Decorator: `function` runs as it is written, when tracing and under mixed precision too.

    `paddle.amp.auto_cast` would run matrix products in half precision, where counts above 256 (bfloat16)
    or 2048 (float16) are no longer whole numbers apart, and more similarities tie. Tracing skips
    Paddle's source transformation, since there is no Python control flow over tensors here.
    """

    @paddle.jit.not_to_static
    @functools.wraps(function)
    def exact(*arguments, **options):
        with paddle.amp.auto_cast(enable=False):
            return function(*arguments, **options)

    return exact
