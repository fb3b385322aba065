"""Random parameters that make every part of a model matter.

A freshly initialised model hides mistakes: LayerNorm scales are 1 and biases 0, so swapping or dropping them
changes nothing. Here no parameter is at its neutral value, and activations keep the scale of a trained model.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn


def randomise(model: nn.Layer, seed: int) -> None:
    """Overwrite all parameters of `model`, repeatably for one seed."""
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        draw = rng.standard_normal(parameter.shape, dtype=np.float32)
        if "norm" in name and name.endswith("weight"):
            draw = 1 + 0.2 * draw
        elif name.endswith("weight"):
            fan_in = int(np.prod(parameter.shape[1:])) if draw.ndim == 4 else parameter.shape[0]
            draw *= fan_in**-0.5
        else:
            draw *= 0.2
        parameter.set_value(paddle.to_tensor(draw).astype(parameter.dtype))
