"""How a model is examined: on copies with random weights, in evaluation, leaving the model itself alone.

A fresh model hides a lot: position biases, LayerScale and heads often start at or near zero. Random weights
bring out whatever its code does with them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import nn
from paddle.utils import unique_name

from tome_core.errors import PatchError

_HALF = (paddle.float16, paddle.bfloat16)
_TOLERANCE = 1e-4  # relative to the largest value


def random_copy(layer: nn.Layer, stand_ins: dict[int, nn.Layer]) -> nn.Layer:
    """A copy in evaluation with random parameters; what `stand_ins` names by id is replaced, not copied."""
    try:
        layer = copy.deepcopy(layer, dict(stand_ins))
    except Exception as error:
        raise PatchError(f"cannot be copied to be examined: {line_of(error)}") from error
    layer.eval()
    if any(parameter.dtype in _HALF for parameter in layer.parameters()):
        layer.to(dtype="float32")  # half precision is too coarse to compare, and on CPUs often missing
    rng = np.random.default_rng(0)
    for name, parameter in layer.named_parameters():
        shape = parameter.shape
        values = rng.random(shape, dtype=np.float32)  # then made to keep the signal's scale
        if len(shape) < 2:
            values = values - 0.5 if "bias" in name else values + 0.5
        else:
            fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
            values = (values - 0.5) * np.float32((12 / fan_in) ** 0.5)
        parameter.set_value(paddle.to_tensor(values, place=parameter.place).astype(parameter.dtype))
    return layer


def random_like(tensor, shape: Sequence[int], seed: int):
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return paddle.to_tensor(values, place=tensor.place).astype(tensor.dtype)


def different(a, b) -> bool:
    """Whether two outputs (tensors, or nested tuples, lists and dicts of them) differ beyond rounding."""
    a, b = _tensors(a), _tensors(b)
    if len(a) != len(b):
        return True
    for one, other in zip(a, b, strict=True):
        if list(one.shape) != list(other.shape):
            return True
        one, other = one.astype("float32").numpy(), other.astype("float32").numpy()
        if not np.abs(one - other).max(initial=0) <= _TOLERANCE * max(np.abs(other).max(initial=0), 1e-6):
            return True
    return False


def _tensors(output) -> list[paddle.Tensor]:
    return [leaf for leaf in paddle.utils.flatten(output) if isinstance(leaf, paddle.Tensor)]


@contextmanager
def side_effects_undone() -> Iterator[None]:
    state = random_state()
    try:
        with paddle.no_grad(), paddle.amp.auto_cast(enable=False), unique_name.guard():
            yield
    finally:
        set_random_state(state)


def random_state() -> tuple:
    """Of the processor and of the current device, which may be the same."""
    return paddle.get_rng_state("cpu"), paddle.get_rng_state()


def set_random_state(state: tuple) -> None:
    paddle.set_rng_state(state[0], "cpu")
    paddle.set_rng_state(state[1])


def line_of(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
