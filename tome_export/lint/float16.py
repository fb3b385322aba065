"""Half precision: what overflows, underflows or decides differently, whatever the target.

Range of float16: largest 65504, smallest normal 6.1e-5, 11 bits of precision (IEEE 754-2019, binary16).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tome_export.lint.findings import RED, YELLOW, Finding
from tome_export.lint.graph import Graph, Node, Tensor
from tome_export.lint.table import Target

LARGEST = 65504.0
_IEEE = "IEEE 754-2019, binary16: largest finite value 65504, 11 bits of precision"
_SQUARES = ("ReduceSumSquare", "ReduceL2", "LpNormalization", "pd_op.p_norm", "pd_op.squared_l2_norm")
_SELECTION = ("ArgMax", "ArgMin", "TopK", "pd_op.argmax", "pd_op.argsort", "pd_op.topk")
_TO_HALF = {"Cast": "10", "pd_op.cast": "float16"}  # the attribute that names float16


def check_float16(graph: Graph, target: Target) -> Iterator[Finding]:
    """Findings about nodes that compute in float16; none for a float32 model."""
    makers = {value.name: node for node in graph.nodes for value in node.outputs if value is not None}
    for node in graph.nodes:
        for severity, problem, advice in _hazards(node, makers):
            yield Finding(target.name, severity, node.name, node.operator, problem, advice, _IEEE)


def _hazards(node: Node, makers: dict[str, Node]) -> Iterator[tuple[str, str, str]]:
    yield from _constants(node)
    first = node.input(0)
    if first is None or first.dtype != "float16":
        return
    if node.operator in ("LayerNormalization", "pd_op.layer_norm"):
        yield (
            YELLOW,
            "LayerNormalization in float16",
            "keep it in float32: its sums of squares overflow at 65504",
        )
    if node.operator in ("Softmax", "LogSoftmax", "pd_op.softmax"):
        yield YELLOW, "Softmax in float16", "keep it in float32, or keep its input below 11 in magnitude"
    if node.operator in _SELECTION:
        yield (
            YELLOW,
            "tokens are chosen by float16 similarities, which tie often",
            "keep the similarity and the selection in float32",
        )
    if node.operator in _SQUARES or _sums_squares(node, makers):
        yield YELLOW, "a sum of squares in float16 overflows at 65504", "square and sum in float32"


def _constants(node: Node) -> Iterator[tuple[str, str, str]]:
    advice = "use a finite mask within +-65504, such as -1e4"
    for value in node.inputs:
        if value is None or not value.constant or value.low is None:
            continue
        if value.dtype == "float16" and (math.isinf(value.low) or math.isinf(value.high)):
            yield RED, "an infinite constant in float16: times zero, or minus itself, it gives NaN", advice
        becomes_half = (
            node.operator in _TO_HALF
            and str(node.attributes.get("to", node.attributes.get("dtype"))) == _TO_HALF[node.operator]
        )
        if becomes_half and _too_large(value):
            extreme = value.low if abs(value.low) > LARGEST else value.high
            yield RED, f"the constant {extreme:.4g} becomes infinite when it is cast to float16", advice


def _too_large(value: Tensor) -> bool:
    return value.dtype != "float16" and max(abs(value.low), abs(value.high)) > LARGEST


def _sums_squares(node: Node, makers: dict[str, Node]) -> bool:
    if node.operator not in ("ReduceSum", "ReduceMean", "pd_op.sum", "pd_op.mean"):
        return False
    maker = makers.get(node.inputs[0].name)
    if maker is None:
        return False
    if maker.operator in ("Mul", "pd_op.multiply"):
        return maker.inputs[0] is not None and maker.inputs[0] == maker.input(1)
    power = maker.input(1)
    return maker.operator == "pd_op.square" or (
        maker.operator == "Pow" and power is not None and power.low == power.high == 2
    )
