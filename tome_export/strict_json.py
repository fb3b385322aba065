"""Parsed JSON -> frozen dataclasses, by their annotations, with errors that name the field at fault.

Understands int, finite float, str, bool, `X | None`, `tuple[X, ...]`, tuples of one type and a fixed length,
`dict[str, X]` and dataclasses. Keys without a field are skipped; a field with a default may be absent.
"""

from __future__ import annotations

import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from tome_export.errors import BundleError, RequestError


def bad(where: str, problem: str) -> BundleError:
    """The error for one field."""
    return BundleError(f"manifest.json: {where} {problem}")


def read(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `kind`, or a BundleError that names `where`."""
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin is types.UnionType:  # only `X | None` is used
        return None if value is None else read(args[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise bad(where, f"should be a list, not {shown(value)}")
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise bad(where, f"should have {len(args)} entries, not {len(value)}")
        return tuple(read(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise bad(where, f"should be an object, not {shown(value)}")
        return {key: read(args[1], item, f"{where}.{key}") for key, item in value.items()}
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        raise bad(where, f"should be {names[kind]}, not {shown(value)}")
    try:
        finite = kind is not float or math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        finite = False
    if not finite:
        raise bad(where, "is not a finite number")
    return kind(value)


def _read_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise bad(where, f"should be an object, not {shown(value)}")
    hints = get_type_hints(kind)
    arguments = {}
    for field in fields(kind):
        name = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            arguments[field.name] = read(hints[field.name], value[field.name], name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise bad(name, "is missing")
    try:
        return kind(**arguments)
    except BundleError:
        raise
    except RequestError as error:  # Preprocess checks itself and does not know that it is in a manifest
        raise bad(where, f"is wrong: {error}") from None


def shown(value: Any) -> str:
    """A value for an error message: short, one line, printable anywhere."""
    text = "an object" if isinstance(value, dict) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
