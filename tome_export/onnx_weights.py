"""Put weights into an ONNX file one at a time: exporting needs memory for the largest tensor, not for all.

`onnx.save` would hold the weights three times over. An ONNX file is a protobuf message, `ModelProto`, whose
field 7 is the graph, whose field 5 is one initializer per entry; both are written here byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

_PROTOBUF_LIMIT = 1_900_000_000  # bytes; the format ends at 2 GiB
_ALIGNMENT = 4096  # of tensors in the side file, so that runtimes can map it
_GRAPH, _INITIALIZER = 7, 5


@dataclass(frozen=True)
class Weight:
    """A parameter: its name in the traced graph, its state-dict key, and the .npy file that holds it."""

    traced_name: str
    key: str
    file: Path

    def array(self, mapped: bool = False) -> np.ndarray:
        return np.load(self.file, mmap_mode="r" if mapped else None)


def read_weights(folder: Path) -> list[Weight]:
    """The parameters that `tome_export.trace` wrote to `folder`."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    return [Weight(name, key, folder / file) for name, (key, file) in names.items()]


def declare_weights(model: ModelProto, weights: Sequence[Weight]) -> None:
    """Make the parameters that the graph reads its inputs, under their state-dict keys."""
    keys = {weight.traced_name: weight.key for weight in weights}
    read = {name for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = keys.get(name, name)
    for weight in weights:
        if weight.traced_name in read:
            array = weight.array(mapped=True)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.input.append(helper.make_tensor_value_info(weight.key, kind, array.shape))


def write_model(model: ModelProto, weights: Sequence[Weight], file: Path) -> None:
    """Write the model with its declared weights as initializers instead of inputs.

    Weights of 2 GB and more go to a side file, `FILE.data`.
    """
    declared = {value.name for value in model.graph.input[1:]}
    weights = [weight for weight in weights if weight.key in declared]
    del model.graph.input[1:]
    if sum(weight.array(mapped=True).nbytes for weight in weights) > _PROTOBUF_LIMIT:
        with open(file.with_name(f"{file.name}.data"), "wb") as side:
            for weight in weights:
                model.graph.initializer.append(_external(weight, side))
        weights = []
    graph = model.graph.SerializeToString()
    shell = ModelProto()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    sizes = [numpy_helper.from_array(weight.array(), weight.key).ByteSize() for weight in weights]
    entries = sum(len(_prefix(_INITIALIZER, size)) + size for size in sizes)
    with open(file, "wb") as out:
        out.write(shell.SerializeToString())
        out.write(_prefix(_GRAPH, len(graph) + entries))
        out.write(graph)
        for weight, size in zip(weights, sizes, strict=True):
            out.write(_prefix(_INITIALIZER, size))
            out.write(numpy_helper.from_array(weight.array(), weight.key).SerializeToString())


def _external(weight: Weight, side: BinaryIO) -> TensorProto:
    """Append the weight to the side file; returns the initializer that points at it."""
    array = weight.array(mapped=True)
    side.write(b"\0" * (-side.tell() % _ALIGNMENT))
    offset = side.tell()
    side.write(np.ascontiguousarray(array).data)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=weight.key, data_type=kind, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    location = {"location": Path(side.name).name, "offset": offset, "length": array.nbytes}
    for key, value in location.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _prefix(field: int, length: int) -> bytes:
    """What precedes a length-delimited protobuf field: its tag and the length, as varints."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
