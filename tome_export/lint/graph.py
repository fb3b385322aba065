"""A graph as the checks see it: nodes with types, shapes and small constants, whichever format it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KEPT = 4096  # elements of a constant whose values are kept


@dataclass(frozen=True)
class Tensor:
    """A value in the graph; None where something is unknown.

    dtype: ONNX's name: float, float16, int64, bool, ... shape: None in it for a dimension that is not fixed.
    constant: known when an engine is built. initializer: stored in the file as such.
    value: of a small constant. low, high: of any constant whose values are in the file; low may be -inf.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    constant: bool = False
    initializer: bool = False
    value: np.ndarray | None = field(default=None, compare=False)
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Node:
    """One operator. `operator` carries its domain unless that is ONNX's own: "MatMul",
    "com.microsoft.Gelu"."""

    name: str
    operator: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    attributes: Mapping[str, Any]

    def input(self, position: int) -> Tensor | None:
        return self.inputs[position] if position < len(self.inputs) else None


@dataclass(frozen=True)
class Graph:
    """kind: "onnx" or "paddle". opset, ir_version: of ONNX. functions:
    whether the file defines functions of its own. problem: why the file cannot be used at all."""

    kind: str
    nodes: tuple[Node, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    opset: int = 0
    ir_version: int = 0
    functions: bool = False
    problem: str = ""


def extent(values: np.ndarray) -> tuple[float | None, float | None]:
    """Lowest and highest of the values, infinities included, NaN left out; None of nothing."""
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "fiub" or not numbers.size:
        return None, None
    if numbers.dtype.kind == "f":
        numbers = numbers[~np.isnan(numbers)]
        if not numbers.size:
            return None, None
        return float(numbers.min()), float(numbers.max())
    return int(numbers.min()), int(numbers.max())
