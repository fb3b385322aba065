"""Checks of single nodes: the operator's row in the table, and the table's further conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tome_export.lint.findings import RED, YELLOW, Finding
from tome_export.lint.graph import Graph, Node, Tensor
from tome_export.lint.table import Check, Lacking, Row, Target


def check_rows(graph: Graph, target: Target) -> Iterator[Finding]:
    """Operators that are not in the table, or not in this opset or with these element types."""
    for node in graph.nodes:
        row = find_row(target, node.operator, graph.opset)
        if node.operator not in target.rows:
            yield _lacking(target, node, target.missing, "the table of this target has no such operator")
        elif row is None:
            source = target.rows[node.operator][-1].source
            problem = f"not in opset {graph.opset}: {target.unsupported.problem}"
            yield _lacking(target, node, replace(target.unsupported, problem=problem), source)
        elif not row.supported:
            yield _lacking(target, node, target.unsupported, row.source)
        else:
            yield from _check_types(node, row, target)


def find_row(target: Target, operator: str, opset: int) -> Row | None:
    """The row that holds at this opset. A Paddle program has no opset: pass 0, and the first row holds."""
    found = None
    for row in target.rows.get(operator, ()):
        if (row.opset <= opset or opset == 0) and (row.until is None or opset <= row.until):
            found = row
    return found


def check_conditions(graph: Graph, target: Target) -> Iterator[Finding]:
    """The table's `[[check]]` entries."""
    by_operator: dict[str, list[Check]] = {}
    for check in target.checks:
        for operator in check.operators:
            by_operator.setdefault(operator, []).append(check)
    for node in graph.nodes:
        for check in by_operator.get(node.operator, ()):
            if holds(check, node, graph.opset):
                yield _finding(target, check.severity, node, check.problem, check.advice, check.source)


def holds(check: Check, node: Node, opset: int) -> bool:
    """Whether every condition of the check is met."""
    conditions = [
        all(str(node.attributes.get(name)) in values for name, values in check.attributes.items()),
        all(text in str(node.attributes.get(name, "")) for name, text in check.contains.items()),
        all(_dtype(node, position) in types for position, types in check.types.items()),
        check.opset_below is None or opset < check.opset_below,
        check.opset_from is None or opset >= check.opset_from,
        check.not_constant is None or not _is(node.input(check.not_constant), "constant"),
        check.not_initializer is None or not _is(node.input(check.not_initializer), "initializer"),
        check.above is None or _exceeds(check.above, node),
        check.outputs_beyond is None
        or any(each is not None for each in node.outputs[check.outputs_beyond :]),
    ]
    return all(conditions)


def _check_types(node: Node, row: Row, target: Target) -> Iterator[Finding]:
    for position, allowed in (row.types or {}).items():
        value = (node.outputs or (None,))[0] if position == "out" else node.input(int(position))
        if value is None or value.dtype is None or value.dtype in allowed:
            continue
        where = "output" if position == "out" else f"input {position}"
        wanted = ", ".join(allowed)
        stand_in = target.limits.get("stand_in", {}).get(value.dtype)
        if stand_in in allowed:
            entry = target.limits["stand_in_finding"]
            yield _finding(
                target, YELLOW, node, entry["problem"].format(dtype=value.dtype, stand_in=stand_in),
                entry["advice"], target.sources.get(entry["source"], entry["source"]),
            )  # fmt: skip
        else:
            problem = f"{where} is {value.dtype}; supported: {wanted}"
            yield _finding(
                target,
                target.unsupported.severity,
                node,
                problem,
                f"cast to {allowed[0]} before it",
                row.source,
            )
        return  # one type variable usually governs the others


def _dtype(node: Node, position: str) -> str | None:
    value = node.input(int(position))
    return None if value is None else value.dtype


def _is(value: Tensor | None, what: str) -> bool:
    return value is None or getattr(value, what)


def _exceeds(above: dict[str, int], node: Node) -> bool:
    for what, limit in above.items():
        if what == "axis":
            shape, axis = (node.input(0) or Tensor("")).shape, int(node.attributes.get("axis", -1))
            size = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
        else:
            value = node.input(int(what))
            size = value.high if value is not None else None
        if size is not None and size > limit:
            return True
    return False


def _lacking(target: Target, node: Node, lacking: Lacking, source: str) -> Finding:
    return _finding(target, lacking.severity, node, lacking.problem, lacking.advice, source)


def _finding(target: Target, severity: str, node: Node, problem: str, advice: str, source: str) -> Finding:
    assert severity in (RED, YELLOW)
    return Finding(target.name, severity, node.name, node.operator, problem, advice, source)
