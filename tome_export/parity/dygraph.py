"""The Python model as the reference: the one whose answers every artifact is held to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
from paddle import nn

from tome_core.taps import tapped


class DygraphFollower:
    """A patched model in eval mode; see `tome_export.parity.following.Follower`."""

    name = "dygraph"

    def __init__(self, model: nn.Layer) -> None:
        self._model = model

    @paddle.no_grad()
    def run(self, image: np.ndarray, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with tapped(self._model, given) as own:
            found = {"logits": self._model(paddle.to_tensor(image)).numpy()}
        if self._model.tome.trace_source:
            found["sources"] = self._model.tome.source.numpy()
        return found | {name: value.numpy() for name, value in own.items()}

    def close(self) -> None:
        self._model = None
