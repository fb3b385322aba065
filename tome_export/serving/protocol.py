"""The Open Inference Protocol v2 over HTTP: bodies of requests -> arrays -> bodies of answers.

A body is JSON, or with the binary-tensor extension JSON followed by the tensors' bytes, the length of the
JSON in the header Inference-Header-Content-Length. Pictures in JSON are base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tome_export.serving.models import VERSION, Asked, Model
from tome_export.serving.refusal import malformed
from tome_export.serving.tensors import (
    BYTES,
    as_objects,
    checked_shape,
    datatype_of,
    from_bytes,
    from_values,
    to_bytes,
)

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Answer:
    """A body; `json_length`: of the JSON at its start if bytes of tensors follow, else None."""

    body: bytes
    json_length: int | None


def read_request(model: Model, body: bytes, header_length: str | None) -> Asked:
    """Parse and check a request for this model. header_length: the header's value, if there is one.

    Length 0 is Triton's short form: the body is the only input's only element. Raises Refusal.
    """
    if header_length is None:
        text, binary = body, None
    else:
        length = _length(header_length, len(body))
        if length == 0:
            return _short_form(model, body)
        text, binary = body[:length], memoryview(body)[length:]
    request = _object(_parse(text), "the request")
    identity = request.get("id", "")
    if not isinstance(identity, str):
        raise malformed("the request's id should be a string")
    array = _input(model, request.get("inputs"), binary)
    all_binary = _parameters(request).get("binary_data_output", False) is True
    outputs = _outputs(model, request.get("outputs"), all_binary)
    return Asked(model, identity, array, tuple(outputs), parameters=outputs)


def write_answer(asked: Asked, outputs: Mapping[str, np.ndarray]) -> Answer:
    """The outputs asked for; `asked.parameters` says of each whether it goes as bytes."""
    tail, described = [], []
    for name in asked.outputs:
        array = outputs[name]
        entry = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
        if asked.parameters.get(name, False):
            tail.append(to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        elif array.dtype.kind == "O":
            entry["data"] = [each.decode("utf-8", "replace") for each in array.ravel()]
        else:
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    answer = {"model_name": asked.model.name, "model_version": VERSION, "outputs": described}
    if asked.id:
        answer["id"] = asked.id
    text = to_json(answer)
    return Answer(b"".join([text, *tail]), len(text) if tail else None)


def to_json(value: Any) -> bytes:
    """Compact, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _length(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) > size:
        raise malformed(f"{HEADER_LENGTH} {text[:40]!r} is not a length within the body of {size} bytes")
    return int(text)


def _short_form(model: Model, body: bytes) -> Asked:
    shape = tuple(1 if size == -1 else size for size in model.input.shape)
    if model.input.datatype == BYTES:
        array = as_objects(model.input.name, shape, [body])
    else:
        array = from_bytes(model.input, shape, body)
    outputs = dict.fromkeys((output.name for output in model.outputs), False)
    return Asked(model, "", array, tuple(outputs), parameters=outputs)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise malformed("the JSON is nested too deeply") from None
    except ValueError as error:  # bad UTF-8 too
        raise malformed(f"the body is not JSON ({error})"[:200]) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed(f"{what} should be a JSON object")
    return value


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = _object(entry.get("parameters", {}), "parameters")
    for name in parameters:
        if name.startswith("shared_memory"):
            raise malformed("shared memory is not supported")
        if name == "classification":
            raise malformed("classification of outputs is not supported; ask the _jpeg model")
        if name.startswith("sequence_"):
            raise malformed("sequences are not supported")
    return parameters


def _input(model: Model, entries: Any, binary: memoryview | None) -> Any:
    if not isinstance(entries, list) or len(entries) != 1:
        raise malformed(f"inputs should be a list of one, {model.input.name!r}")
    entry = _object(entries[0], "an input")
    name = entry.get("name")
    if name != model.input.name:
        raise malformed(f"no input {str(name)[:100]!r}; this model takes {model.input.name!r}")
    shape = checked_shape(name, entry.get("shape"))
    model.input.check(str(entry.get("datatype"))[:20], shape)
    size = _parameters(entry).get("binary_data_size")
    if size is None:
        if binary:
            raise malformed(f"{len(binary)} bytes follow the JSON, and no input says that they are its own")
        if "data" not in entry:
            raise malformed(f"input {name!r} has no data")
        return _from_json(model, shape, entry["data"])
    if "data" in entry:
        raise malformed(f"input {name!r} has both data and binary_data_size")
    if binary is None:
        raise malformed(f"binary_data_size needs the header {HEADER_LENGTH}")
    if type(size) is not int or size != len(binary):
        raise malformed(f"binary_data_size of {name!r} is {str(size)[:40]}, and {len(binary)} bytes follow")
    return from_bytes(model.input, shape, binary)


def _from_json(model: Model, shape: tuple[int, ...], values: Any) -> Any:
    if model.input.datatype != BYTES:
        return from_values(model.input, shape, values)
    while isinstance(values, list) and values and isinstance(values[0], list):
        values = [each for row in values if isinstance(row, list) for each in row]
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise malformed(f"the data of {model.input.name!r} should be base64 strings")
    try:
        contents = [base64.b64decode(each, validate=True) for each in values]
    except (binascii.Error, ValueError):
        raise malformed(f"the data of {model.input.name!r} are not base64") from None
    return as_objects(model.input.name, shape, contents)


def _outputs(model: Model, entries: Any, all_binary: bool) -> dict[str, bool]:
    """Output -> whether as bytes, in the order asked for; all without a request."""
    known = [output.name for output in model.outputs]
    if entries is None or entries == []:
        return dict.fromkeys(known, all_binary)
    if not isinstance(entries, list) or len(entries) > len(known):
        raise malformed(f"outputs should be a list of some of {', '.join(known)}")
    wanted: dict[str, bool] = {}
    for entry in entries:
        name = _object(entry, "an output").get("name")
        if name not in known or name in wanted:
            raise malformed(f"no output {str(name)[:100]!r}, or twice; this model has {', '.join(known)}")
        wanted[name] = _parameters(entry).get("binary_data", all_binary) is True
    return wanted
