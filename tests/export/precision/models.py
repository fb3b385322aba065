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


def out_of_range(layer, block: int) -> None:
    """A weight of the MLP that float16 cannot hold, on a channel that is always zero."""
    import paddle

    target = layer.blocks[block]
    with paddle.no_grad():
        for parameter in (target.norm2.weight, target.norm2.bias):
            parameter.set_value(_scaled(parameter, 0.0))
        weight = target.mlp.fc1.weight.numpy().copy()  # [in, out]
        weight[0] = 1e6
        target.mlp.fc1.weight.set_value(weight)


def overflowing(layer, block: int, by: float = 1e5) -> None:
    """Make a hidden channel of the MLP a large constant whose effect is nought: in float32 the same function,
    in float16 infinite."""
    import paddle

    mlp = layer.blocks[block].mlp
    with paddle.no_grad():
        bias = mlp.fc1.bias.numpy().copy()
        weight = mlp.fc1.weight.numpy().copy()  # [in, out]
        after = mlp.fc2.weight.numpy().copy()
        bias[:2], weight[:, :2] = by / 2, 0.0
        after[0], after[1] = 1.0, -1.0
        after[0] *= 2
        after[1] *= 2
        mlp.fc1.bias.set_value(bias)
        mlp.fc1.weight.set_value(weight)
        mlp.fc2.weight.set_value(after)
