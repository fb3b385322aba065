"""What every runtime offers. Parity, benchmark, evaluation and prediction are written once against it.

A runtime reads a bundle and nothing else; it imports its engine only when it is opened or probed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, RequestError
from tome_export.manifest import Manifest

_EXACT = {"bf16": 256, "fp16": 2048}  # whole numbers up to here


@dataclass(frozen=True)
class Probe:
    """Whether a runtime can be used here. `detail`: its devices if usable, else what to install."""

    name: str
    usable: bool
    version: str | None
    detail: str


class Runtime(ABC):
    """An opened model: a numpy batch in, numpy outputs by name out. Not for several threads at once.

    name, version: the engine's. device: as asked for. notes: what its user should know, such as a fallback.
    """

    name: str
    version: str
    device: str
    notes: tuple[str, ...]

    def __init__(self, bundle: Bundle, device: str):
        self.device = device
        self.notes = ()
        self._input = bundle.manifest.inputs[0]
        self._outputs = tuple(output.name for output in bundle.manifest.outputs)
        self._open = True

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run one batch.

        image: float32 `[n, 3, H, W]`, n >= 1, normalised; any memory layout.
        Returns the manifest's outputs by name, in its order; the arrays are the caller's own.
        Raises RequestError for an input the model does not take, or a closed runtime.
        """
        if not self._open:
            raise RequestError(f"this {self.name} runtime is closed; open it again")
        outputs = self._run(np.ascontiguousarray(self._checked(image)))
        return {
            name: output if output.flags.owndata else output.copy()
            for name, output in zip(self._outputs, outputs, strict=True)
        }

    def close(self) -> None:
        """Free the engine's memory. May be called twice."""
        if self._open:
            self._open = False
            self._close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        """Outputs in graph order, for a checked and contiguous image."""

    @abstractmethod
    def _close(self) -> None:
        """Drop the engine's objects."""

    def _checked(self, image: np.ndarray) -> np.ndarray:
        expected = f"{self._input.dtype} [n, {', '.join(map(str, self._input.shape[1:]))}]"
        if not isinstance(image, np.ndarray):
            raise RequestError(f"the input is a {type(image).__name__}; pass a numpy array, {expected}")
        if image.dtype != self._input.dtype or image.shape[1:] != self._input.shape[1:] or image.ndim < 1:
            raise RequestError(f"the input is {image.dtype} {list(image.shape)}; this model takes {expected}")
        if len(image) == 0:
            raise RequestError(f"the input is an empty batch; this model takes {expected} with n >= 1")
        return image

    def _check_outputs(self, count: int) -> None:
        if count != len(self._outputs):
            raise BundleError(
                f"the {self.name} model has {count} outputs and the manifest names "
                f"{len(self._outputs)}; export the bundle again"
            )


def parse_device(device: str) -> tuple[str, int]:
    """ "cpu", "cuda" or "cuda:1" -> (kind, index). Raises RequestError."""
    match = re.fullmatch(r"(cpu)|cuda(?::(\d{1,3}))?", device)
    if match is None:
        raise RequestError(f"no device {device!r}; choose cpu, cuda or cuda:N")
    return ("cpu", 0) if match[1] else ("cuda", int(match[2] or 0))


def check_threads(threads: int | None) -> int | None:
    """`threads`, if it is None or at least 1. Raises RequestError."""
    if threads is not None and threads < 1:
        raise RequestError(f"threads should be at least 1, not {threads}")
    return threads


def check_counts(engine: str, precision: str, manifest: Manifest) -> None:
    """For an engine that takes every float to this precision. Raises RequestError if what is left of merging
    in floats, how many tokens before each one merge, may not be exact."""
    if (most := max(manifest.tome.r, default=0)) > (exact := _EXACT[precision]):
        raise RequestError(
            f"{engine}'s {precision} counts exactly up to {exact}, and this model merges {most} tokens in a "
            "block; use --precision fp32"
        )


def first_line(error: Exception) -> str:
    """The first line of an engine's error, for a one-line message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
