"""A model that can be told what to go on with: run freely, made to merge the same tokens, or part by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import RequestError
from tome_export.runtimes import open_runtime
from tome_export.runtimes.onnx_runtime import start_session

Run = dict[str, np.ndarray]
"""Outputs and tapped tensors of one image by name, each with a batch of 1."""


class Follower(Protocol):
    """The reference that runtimes are compared with.

    name: what reports call it. `run` takes one image, float32 [1, 3, H, W], and values to use in place of
    its own, by the names of `tome_core.schedule.tap_names`; it returns its own outputs and tensors by name.
    """

    name: str

    def run(self, image: np.ndarray, given: Mapping[str, np.ndarray]) -> Run: ...

    def rest(self) -> None:
        """Give memory back until the next run, if that is worth the while."""

    def close(self) -> None: ...


class OnnxFollower:
    """The ONNX artifact of a bundle, on ONNX Runtime's CPU provider.

    What is given becomes graph inputs, so each set of names needs a session of its own; the last two are
    kept.
    """

    def __init__(self, bundle: Bundle, precision: str = "fp32") -> None:
        self.name = "onnx"
        self._outputs = tuple(output.name for output in bundle.manifest.outputs)
        self._taps = bundle.taps
        self._file = bundle.file(bundle.artifact("onnx", precision), ".onnx")
        self._sessions: dict[frozenset[str], object] = {}

    def run(self, image: np.ndarray, given: Mapping[str, np.ndarray]) -> Run:
        from tome_export.onnx_taps import GIVEN

        session = self._session(frozenset(given) & set(self._taps))
        names = [output.name for output in session.get_outputs()]
        inputs = {
            value.name: given.get(value.name.removeprefix(GIVEN), image) for value in session.get_inputs()
        }
        return dict(zip(names, session.run(names, inputs), strict=True))

    def _session(self, given: frozenset[str]):
        from tome_export.onnx_taps import with_taps

        if given not in self._sessions:
            while len(self._sessions) > 1:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[given] = start_session(with_taps(self._file, self._taps, given), self._file.parent)
        return self._sessions[given]

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self._sessions.clear()


class RuntimeReference:
    """A runtime that can be asked but not told: another must follow it."""

    def __init__(self, name: str, bundle: Bundle) -> None:
        self.name = name
        self._runtime = open_runtime(name, bundle, taps=True)

    def run(self, image: np.ndarray, given: Mapping[str, np.ndarray]) -> Run:
        """Raises RequestError if anything is given."""
        if given:
            raise RequestError(f"{self.name} cannot be told what to merge")
        return self._runtime.run(image)

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self._runtime.close()
