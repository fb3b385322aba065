"""The tables of what each target supports: `targets/*.toml`, read and checked. docs/portability.md
explains them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tome_export.errors import RequestError

TARGETS = (
    "tensorrt-8.6",
    "tensorrt-10",
    "tensorrt-11",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "openvino",
    "paddle-trt",
)


@dataclass(frozen=True)
class Row:
    """One operator from one opset on. types: element types by position ("0": first input, "out": first
    output); a position that is not named may have any. until: the last opset this row holds for."""

    operator: str
    source: str
    opset: int = 1
    until: int | None = None
    types: Mapping[str, tuple[str, ...]] | None = None
    supported: bool = True


@dataclass(frozen=True)
class Check:
    """A condition beyond the row: when everything given here holds for a node, it is a finding.

    operators: the nodes it is about. attributes: for each, one of these values, written as text.
    contains: a text inside an attribute. types: element types of inputs by position; a text is for the first.
    opset_below, opset_from: the model's opset. not_constant, not_initializer: this input is not known at
    build time, or not stored as such. above: this input holds more than this; "axis" stands for the size of
    the dimension that the attribute axis names. outputs_beyond: a later output is used.
    """

    operators: tuple[str, ...]
    severity: str
    problem: str
    advice: str
    source: str
    attributes: Mapping[str, tuple[str, ...]]
    contains: Mapping[str, str]
    types: Mapping[str, tuple[str, ...]]
    opset_below: int | None = None
    opset_from: int | None = None
    not_constant: int | None = None
    not_initializer: int | None = None
    above: Mapping[str, int] | None = None
    outputs_beyond: int | None = None


@dataclass(frozen=True)
class Lacking:
    """What it means that an operator has no row, or that its row says no."""

    severity: str
    problem: str
    advice: str


@dataclass(frozen=True)
class Target:
    """Everything known about one target. graph: "onnx" or "paddle", what it reads. missing: of operators
    without
    a row; unsupported: of rows that say no, or not for this opset or type. limits: of the whole model."""

    name: str
    title: str
    graph: str
    missing: Lacking
    unsupported: Lacking
    rows: Mapping[str, tuple[Row, ...]]
    checks: tuple[Check, ...]
    sources: Mapping[str, str]
    limits: Mapping[str, Any]
    note: str = ""


def choose(names: list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """The targets asked for, each once, in the tables' order; all of them for None. Commas separate, too.

    Raises RequestError for a name that is no target.
    """
    if not names:
        return TARGETS
    asked = [part.strip() for name in names for part in name.split(",") if part.strip()]
    for name in asked:
        if name not in TARGETS:
            raise RequestError(f"no target {name!r}; choose from {', '.join(TARGETS)}")
    return tuple(name for name in TARGETS if name in asked)


@functools.cache
def load(name: str) -> Target:
    """The table of one target."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text = resources.files("tome_export.lint").joinpath("targets", f"{name}.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    sources = data["sources"]
    return Target(
        name=data["name"],
        title=data["title"],
        graph=data["graph"],
        missing=Lacking(**data["missing"]),
        unsupported=Lacking(**data["unsupported"]),
        rows={operator: _rows(operator, entry, sources) for operator, entry in data["operators"].items()},
        checks=tuple(_check(entry, sources) for entry in data.get("check", [])),
        sources=sources,
        limits=data["limits"],
        note=data.get("note", ""),
    )


def _rows(operator: str, entry: Any, sources: Mapping[str, str]) -> tuple[Row, ...]:
    rows = []
    for each in entry if isinstance(entry, list) else [entry]:
        types = {key: tuple(value.split()) for key, value in each.get("types", {}).items()}
        source = sources[each["source"]] if each["source"] in sources else each["source"]
        rows.append(
            Row(operator, source, each.get("opset", 1), each.get("until"), types, each.get("supported", True))
        )
    return tuple(sorted(rows, key=lambda row: row.opset))


def _check(entry: dict[str, Any], sources: Mapping[str, str]) -> Check:
    entry = dict(entry)
    source = entry.pop("source")
    types = entry.pop("types", {})
    types = {"0": types} if isinstance(types, str) else types
    attributes = {name: tuple(text.split()) for name, text in entry.pop("attributes", {}).items()}
    return Check(
        operators=tuple(entry.pop("operators").split()),
        types={position: tuple(text.split()) for position, text in types.items()},
        contains=entry.pop("contains", {}),
        attributes=attributes,
        source=sources.get(source, source),
        **entry,
    )
