"""The Python model as the reference: the one whose answers every artifact is held to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from tome_core.taps import tapped
from tome_export.parity.following import Run


class DygraphFollower:
    """A patched model in eval mode; see `tome_export.parity.following.Follower`.

    spool: a folder to be made, where the weights of a model that nobody else uses wait while it rests.
    """

    name = "dygraph"

    def __init__(self, model: nn.Layer, spool: Path | None = None) -> None:
        self._model, self._spool, self._resting = model, spool, False

    @paddle.no_grad()
    def run(self, image: np.ndarray, given: Mapping[str, np.ndarray]) -> Run:
        self._wake()
        with tapped(self._model, given) as own:
            found = {"logits": self._model(paddle.to_tensor(image)).numpy()}
        if self._model.tome.trace_source:
            found["sources"] = self._model.tome.source.numpy()
        return found | {name: value.numpy() for name, value in own.items()}

    def rest(self) -> None:
        if self._spool is None or self._resting:
            return
        self._spool.mkdir(exist_ok=True)
        for index, parameter in enumerate(self._model.parameters()):
            file = self._spool / f"{index}.npy"
            if not file.exists():
                np.save(file, parameter.numpy())
            parameter.get_tensor()._clear()
        self._resting = True

    @paddle.no_grad()
    def _wake(self) -> None:
        if self._resting:
            for index, parameter in enumerate(self._model.parameters()):
                parameter.set_value(np.load(self._spool / f"{index}.npy", mmap_mode="r"))
            self._resting = False

    def close(self) -> None:
        self._model = None
