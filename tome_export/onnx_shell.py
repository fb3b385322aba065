"""Read an ONNX file without its weights: a look at the graph, or a change to it, takes a few hundred kB.

The weights stay where they are: each becomes an external tensor that points at its bytes inside the same
file, so that a runtime can still load the shell, given the file's folder. The inverse of
`onnx_weights.write_model`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from tome_export.errors import BundleError

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # protobuf field numbers of ModelProto, GraphProto, TensorProto
_SMALL = 1024  # bytes; smaller tensors are kept as values
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def load_shell(file: Path) -> ModelProto:
    """The model in `file`, its weights of more than 1 kB as external tensors. Raises BundleError."""
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _model(data, file.name)
    except (ValueError, IndexError, OSError) as error:
        raise BundleError(f"{file}: not an ONNX model ({error}); export the bundle again") from None
    except Exception as error:  # protobuf's own DecodeError
        if type(error).__name__ != "DecodeError":
            raise
        raise BundleError(f"{file}: not an ONNX model (damaged); export the bundle again") from None


def _model(data: mmap.mmap, name: str) -> ModelProto:
    model, graph = bytearray(), None
    for field, start, body, end in _fields(data, 0, len(data)):
        if field == _GRAPH:
            graph = _graph(data, body, end, name)
        else:
            model += data[start:end]
    shell = ModelProto.FromString(bytes(model))
    if graph is None:
        raise ValueError("it holds no graph")
    shell.graph.CopyFrom(graph)
    return shell


def _graph(data: mmap.mmap, begin: int, stop: int, name: str) -> GraphProto:
    rest, weights = bytearray(), []
    for field, start, body, end in _fields(data, begin, stop):
        if field == _INITIALIZER and end - body > _SMALL:
            weights.append(_tensor(data, body, end, name))
        else:
            rest += data[start:end]
    graph = GraphProto.FromString(bytes(rest))
    graph.initializer.extend(weights)
    return graph


def _tensor(data: mmap.mmap, begin: int, stop: int, name: str) -> TensorProto:
    rest, place = bytearray(), None
    for field, start, body, end in _fields(data, begin, stop):
        if field == _RAW_DATA:
            place = body, end - body
        else:
            rest += data[start:end]
    tensor = TensorProto.FromString(bytes(rest))
    if place is not None:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": name, "offset": place[0], "length": place[1]}.items():
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def _fields(data: mmap.mmap, begin: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, where it starts, where its content starts, where it ends), of one protobuf message."""
    while begin < stop:
        start = begin
        tag, begin = _varint(data, begin)
        kind, body = tag & 7, begin
        if kind == _VARINT:
            _, begin = _varint(data, begin)
        elif kind in (_FIXED64, _FIXED32):
            begin += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, body = _varint(data, begin)
            begin = body + length
        else:
            raise ValueError("unknown protobuf encoding")
        if begin > stop:
            raise ValueError("it ends too early")
        yield tag >> 3, start, body, begin


def _varint(data: mmap.mmap, begin: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[begin]
        value |= (byte & 0x7F) << shift
        begin, shift = begin + 1, shift + 7
        if byte < 0x80:
            return value, begin
        if shift > 63:
            raise ValueError("unknown protobuf encoding")
