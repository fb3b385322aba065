"""Put named arrays into a model: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
from paddle import nn

from tome_core.errors import CheckpointError

_SHOWN = 4


def load_weights(model: nn.Layer, tensors: Mapping[str, np.ndarray]) -> None:
    """Copy `tensors` into the parameters of the same names, cast to the parameters' dtype.

    Raises CheckpointError that names what is missing, unexpected or mis-shaped; then nothing was loaded.
    """
    parameters = model.state_dict()
    problems = []
    missing = [name for name in parameters if name not in tensors]
    unexpected = [name for name in tensors if name not in parameters]
    mis_shaped = [
        f"{name} (file {list(tensors[name].shape)}, model {list(parameters[name].shape)})"
        for name in parameters
        if name in tensors and list(tensors[name].shape) != list(parameters[name].shape)
    ]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", mis_shaped)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            problems.append(f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}")
    if problems:
        raise CheckpointError(f"the weights do not fit the model; {'; '.join(problems)}")
    for name, parameter in parameters.items():
        value = paddle.to_tensor(np.ascontiguousarray(tensors[name]))
        parameter.set_value(value.astype(parameter.dtype))
