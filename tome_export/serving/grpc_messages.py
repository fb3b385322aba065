"""The Open Inference Protocol v2 over gRPC: messages -> arrays -> messages.

The messages are tritonclient's own. They are pickled on their way through Ray, and name a module that only
`tritonclient.grpc` puts on the path; `load_messages` gives it that name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from tome_export.errors import MissingExtraError
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


def load_messages() -> Any:
    """The module of the messages. Raises MissingExtraError."""
    try:
        from tritonclient.grpc import model_config_pb2, service_pb2
    except ImportError as error:
        raise MissingExtraError(
            f'tritonclient cannot be imported ({error}): pip install "tome-export[serve]"'
        ) from None
    sys.modules.setdefault("grpc_service_pb2", service_pb2)
    sys.modules.setdefault("model_config_pb2", model_config_pb2)
    return service_pb2


def read_request(model: Model, request: Any) -> Asked:
    """Check a ModelInferRequest for this model. Raises Refusal."""
    if len(request.inputs) != 1:
        raise malformed(f"{len(request.inputs)} inputs; this model takes one, {model.input.name!r}")
    entry = request.inputs[0]
    if entry.name != model.input.name:
        raise malformed(f"no input {entry.name[:100]!r}; this model takes {model.input.name!r}")
    for parameters in (request.parameters, entry.parameters, *(each.parameters for each in request.outputs)):
        _check_parameters(parameters)
    shape = checked_shape(entry.name, list(entry.shape))
    model.input.check(entry.datatype[:20], shape)
    array = _array(model, shape, entry.contents, request.raw_input_contents)
    return Asked(model, request.id, array, _outputs(model, [each.name for each in request.outputs]))


def write_answer(messages: Any, asked: Asked, outputs: Mapping[str, np.ndarray]) -> Any:
    """A ModelInferResponse of the outputs asked for."""
    answer = messages.ModelInferResponse(model_name=asked.model.name, model_version=VERSION, id=asked.id)
    for name in asked.outputs:
        array = outputs[name]
        answer.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        answer.raw_output_contents.append(to_bytes(array))
    return answer


def _array(model: Model, shape: tuple[int, ...], contents: Any, raw: Any) -> Any:
    name = model.input.name
    filled = [field.name for field, _ in contents.ListFields()]
    if len(raw) > 1 or (raw and filled):
        raise malformed(f"the data of {name!r} should come once: {len(raw)} raw contents, and {filled}")
    if raw:
        return from_bytes(model.input, shape, raw[0])
    wanted = "bytes_contents" if model.input.datatype == BYTES else "fp32_contents"
    if filled and filled != [wanted]:
        raise malformed(f"the data of {name!r} should be in {wanted} or raw_input_contents, not in {filled}")
    if model.input.datatype == BYTES:
        return as_objects(name, shape, list(contents.bytes_contents))
    return from_values(model.input, shape, np.array(contents.fp32_contents, np.float32))


def _outputs(model: Model, wanted: list[str]) -> tuple[str, ...]:
    known = [output.name for output in model.outputs]
    for name in wanted:
        if name not in known or wanted.count(name) > 1:
            raise malformed(f"no output {name[:100]!r}, or twice; this model has {', '.join(known)}")
    return tuple(wanted or known)


def _check_parameters(parameters: Any) -> None:
    for name in parameters:
        if name.startswith("shared_memory"):
            raise malformed("shared memory is not supported")
        if name == "classification":
            raise malformed("classification of outputs is not supported; ask the _jpeg model")
        if name.startswith("sequence_") and parameters[name].WhichOneof("parameter_choice"):
            raise malformed("sequences are not supported")
