"""Checks of the whole model: opset, file format, dynamic dimensions, integers that do not fit."""

from __future__ import annotations

from collections.abc import Iterator

from tome_export.lint.findings import RED, YELLOW, Finding
from tome_export.lint.graph import Graph, Tensor
from tome_export.lint.table import Target

_INT32 = (-(2**31), 2**31 - 1)
_TO_THE_END = {"Slice": (1, 2)}  # its bounds are clamped by definition, so exporters write the largest int64


def check_opset(graph: Graph, target: Target) -> Iterator[Finding]:
    """The model's opset and IR version against the target's."""
    limits = target.limits
    source = limits.get("opset_source", "")
    lowest, highest = limits.get("min_opset", 0), limits.get("max_opset")
    if graph.opset < lowest:
        yield _about(
            target, RED, f"opset {graph.opset} is below {lowest}", f"--opset {lowest} or later", source
        )
    if highest is not None and graph.opset > highest:
        problem = f"opset {graph.opset} is beyond {highest}, the highest that {target.title} reads"
        yield _about(target, RED, problem, f"export with --opset {highest} or lower", source)
    everywhere = limits.get("max_opset_everywhere")
    if everywhere is not None and everywhere < graph.opset <= highest:
        problem = f"opset {graph.opset}: the first releases of {target.title} read up to {everywhere}"
        yield _about(target, YELLOW, problem, f"use the newest release, or --opset {everywhere}", source)
    newest = limits.get("max_ir_version")
    if newest is not None and graph.ir_version > newest:
        problem = f"IR version {graph.ir_version} is beyond {newest}"
        yield _about(target, RED, problem, f"write the file with IR version {newest}", source)


def check_functions(graph: Graph, target: Target) -> Iterator[Finding]:
    """Functions defined in the file, for a target that does not read them."""
    if graph.functions and "functions" in target.limits:
        problem, advice = "the file defines functions, which are not read", "inline them (onnx.inliner)"
        yield _about(target, target.limits["functions"], problem, advice, target.limits["functions_source"])


def check_dynamic(graph: Graph, target: Target) -> Iterator[Finding]:
    """Dimensions other than the first that are not fixed. In a Paddle program only those of the inputs count:
    its own shape inference leaves others open that are fixed when it runs."""
    limits = target.limits
    severity, source = limits["dynamic"], limits["dynamic_source"]
    source = target.sources.get(source, source)
    advice = "fix the token counts before export; only the batch may vary"
    for value in graph.inputs:
        if _open(value):
            yield Finding(target.name, severity, value.name, "input", _shape(value), advice, source)
    if graph.kind == "paddle":
        return
    for node in graph.nodes:
        inputs = [each for each in node.inputs if each is not None]
        made_here = not any(_open(each) or _unknown(each) for each in inputs)
        for value in node.outputs:
            if value is not None and made_here and _open(value):
                yield Finding(target.name, severity, node.name, node.operator, _shape(value), advice, source)


def check_integers(graph: Graph, target: Target) -> Iterator[Finding]:
    """int64 constants that a target without int64 clamps or wraps."""
    source = target.limits.get("int32_source")
    if source is None:
        return
    for node in graph.nodes:
        constants = [(position, value) for position, value in enumerate(node.inputs) if value is not None]
        if node.operator == "Constant" and node.outputs[0] is not None:
            continue  # seen where it is used
        for position, value in constants:
            if not value.constant or value.dtype != "int64" or value.low is None:
                continue
            if position in _TO_THE_END.get(node.operator, ()):
                continue
            if value.low < _INT32[0] or value.high > _INT32[1]:
                extreme = value.low if value.low < _INT32[0] else value.high
                problem = f"the int64 constant {extreme:.0f} does not fit 32 bits; it is clamped, silently"
                advice = "use a value within 32 bits"
                yield Finding(target.name, RED, node.name, node.operator, problem, advice, source)


def _open(value: Tensor) -> bool:
    return value.shape is not None and any(size is None for size in value.shape[1:])


def _unknown(value: Tensor) -> bool:
    return value.shape is None and not value.constant


def _shape(value: Tensor) -> str:
    sizes = ["batch" if i == 0 and size is None else str(size or "?") for i, size in enumerate(value.shape)]
    return f"a dimension other than the batch is not fixed: [{', '.join(sizes)}]"


def _about(target: Target, severity: str, problem: str, advice: str, source: str) -> Finding:
    return Finding(target.name, severity, "", "model", problem, advice, target.sources.get(source, source))
