"""Models whose int8 form is known to be good, or to be bad in one block."""

from __future__ import annotations

import numpy as np


def hard_to_quantise(layer, block: int, by: float = 2000.0) -> None:
    """Make one channel that the MLP of a block reads `by` times larger, and the weights that read it as much
    smaller: in float the same function, in int8 with one scale a tensor nothing is left of the others."""
    import paddle

    target = layer.blocks[block]
    with paddle.no_grad():
        for parameter in (target.norm2.weight, target.norm2.bias):
            parameter.set_value(_scaled(parameter, by))
        weight = target.mlp.fc1.weight  # [in, out]
        weight.set_value(_scaled(weight, 1 / by))


def _scaled(parameter, by: float) -> np.ndarray:
    value = parameter.numpy().copy()
    value[0] *= by
    return value
