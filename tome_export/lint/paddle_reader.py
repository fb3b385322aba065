"""A Paddle program (`inference.json`, PIR) as a `Graph`, read as data: Paddle is not needed.

Keys of an operator: "#" its name, with the dialect as a number; "I" and "O" its operands and results by
number; "A" its attributes. "p" is a parameter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tome_export.errors import BundleError
from tome_export.lint.graph import Graph, Node, Tensor, extent

_DIALECTS = {"0": "builtin", "1": "pd_op", "2": "cf", "3": "custom_op"}
_TYPES = {
    "f32": "float", "f64": "double", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "ui8": "uint8",
    "i16": "int16", "i32": "int32", "i64": "int64", "bool": "bool",
}  # fmt: skip
_FREE = (
    "builtin.combine",
    "builtin.split",
    "builtin.slice",
    "builtin.parameter",
    "pd_op.data",
    "pd_op.fetch",
)
_CONSTANTS = ("pd_op.full", "pd_op.full_int_array", "pd_op.assign_value", "pd_op.assign_value_")


def read_file(path: Path) -> Graph:
    """Raises BundleError for a file that is no Paddle program of the PIR kind."""
    try:
        blocks = json.loads(path.read_text(encoding="utf-8"))["program"]["regions"][0]["blocks"]
        return _read([op for block in blocks for op in block["ops"]])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError, AttributeError) as error:
        raise BundleError(
            f"{path}: cannot be read as a Paddle program ({type(error).__name__}: {error})"
        ) from None


def operator_names(path: Path) -> list[str]:
    """Every operator of the program in order, those too that only carry values."""
    blocks = json.loads(path.read_text(encoding="utf-8"))["program"]["regions"][0]["blocks"]
    return [_name(op["#"]) for block in blocks for op in block["ops"]]


def _read(ops: list[dict]) -> Graph:
    scope: dict[int, Tensor] = {}
    nodes, inputs = [], []
    for op in ops:
        operator = _name(op["#"])
        attributes = {} if op["#"] == "p" else {each["N"]: _value(each["AT"]) for each in op["A"]}
        operands = tuple(scope.get(each["%"]) for each in op.get("I", []))
        results = op["O"] if isinstance(op["O"], list) else [op["O"]]
        constant = operator in (*_CONSTANTS, "builtin.parameter")
        given = attributes.get("values", attributes.get("value")) if operator in _CONSTANTS else None
        for result in results:
            dtype, shape = _tensor_type(result["TT"])
            value = np.atleast_1d(np.asarray(given)) if given is not None else None
            low, high = extent(value) if value is not None else (None, None)
            name = f"%{result['%']}"
            scope[result["%"]] = Tensor(name, dtype, shape, constant, constant, value, low, high)
        outputs = tuple(scope[result["%"]] for result in results)
        if operator == "pd_op.data":
            inputs.extend(outputs)
        if operator not in _FREE:
            where = str(attributes.get("struct_name", "")).strip("/")
            name = f"{where} {outputs[0].name}".strip() if outputs else where
            nodes.append(Node(name, operator, operands, outputs, attributes))
    return Graph("paddle", tuple(nodes), tuple(inputs))


def _name(key: str) -> str:
    if key == "p":
        return "builtin.parameter"
    dialect, _, name = key.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}.{name}"


def _tensor_type(described: dict) -> tuple[str | None, tuple[int | None, ...] | None]:
    if not described.get("#", "").endswith("t_dtensor"):
        return None, None
    element, shape = described["D"][:2]
    kind = element["#"].partition("t_")[2]
    return _TYPES.get(kind, kind), tuple(None if size < 0 else size for size in shape)


def _value(typed: dict) -> Any:
    value = typed.get("D")
    if isinstance(value, list) and typed["#"].endswith("a_array"):
        return [_value(each) for each in value]
    return value
