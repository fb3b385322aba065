"""Protobuf's text format, as far as a model configuration needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class Symbol(str):
    """The name of an enumeration's value, which stands without quotes."""


def as_text(message: Mapping[str, Any]) -> str:
    """A message: fields in the mapping's order, those that are None left out.

    A value is a str, Symbol, bool, int, a mapping (a message), or a list of those (a repeated field).
    """
    return "\n".join(_lines(message)) + "\n"


def pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A map field: protobuf writes it as a list of keys with their values."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in message.items():
        if value is None:
            continue
        if isinstance(value, list) and not any(isinstance(each, Mapping) for each in value):
            yield f"{indent}{name}: [{', '.join(map(_scalar, value))}]"
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(each, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(each)}"


def _scalar(value: str | bool | int) -> str:
    if isinstance(value, Symbol):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value)  # the text format takes JSON's strings and whole numbers
