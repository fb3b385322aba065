"""Look into a patched model while it runs, or make it go on with other values than its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import nn


@contextmanager
def tapped(
    model: nn.Layer, given: Mapping[str, np.ndarray] | None = None
) -> Iterator[dict[str, paddle.Tensor]]:
    """Within the block, each forward of `model` (patched) leaves its own tensors in the dict that is yielded.

    Their names are those of `tome_core.schedule.tap_names`. given: values that take the place of the
    model's own, by name: with all labels given, the model merges as it is told; with everything given, each
    part of it works on what it is given and its own errors do not add up.
    """
    own: dict[str, paddle.Tensor] = {}
    given = given or {}

    def tap(name: str, x: paddle.Tensor) -> paddle.Tensor:
        own[name] = x
        return paddle.to_tensor(given[name]) if name in given else x

    state = model.tome
    previous, state.tap = state.tap, tap
    try:
        yield own
    finally:
        state.tap = previous
