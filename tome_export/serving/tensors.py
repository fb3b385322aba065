"""The tensors of the Open Inference Protocol: datatypes, shapes, bytes. Used over HTTP and gRPC alike."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tome_export.serving.refusal import malformed

DATATYPES = {
    "float32": "FP32",
    "float16": "FP16",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "int8": "INT8",
    "bool": "BOOL",
}
"""numpy's names -> the protocol's. BYTES has no numpy type: an array of Python objects."""
BYTES = "BYTES"
_ELEMENTS = 1 << 40


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model: -1 in `shape` is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    def check(self, datatype: str, shape: Sequence[int]) -> None:
        """Raises Refusal unless a tensor of this datatype and shape may be given for it."""
        if datatype != self.datatype:
            raise malformed(f"input {self.name!r} is {datatype}; this model takes {self.datatype}")
        fits = len(shape) == len(self.shape) and all(
            size >= 1 if wanted == -1 else size == wanted
            for size, wanted in zip(shape, self.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("n" if size == -1 else str(size) for size in self.shape)
            raise malformed(
                f"input {self.name!r} has shape {list(shape)}; this model takes [{wanted}], n >= 1"
            )


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Non-negative whole numbers whose product is no absurdity. Raises Refusal."""
    good = isinstance(shape, Sequence) and not isinstance(shape, str) and len(shape) <= 16
    if not good or not all(type(size) is int and 0 <= size <= _ELEMENTS for size in shape):
        raise malformed(f"the shape of {name!r} should be a list of up to 16 whole numbers from 0 on")
    if prod(shape) > _ELEMENTS:
        raise malformed(f"the shape of {name!r} is too large")
    return tuple(shape)


def from_bytes(spec: TensorSpec, shape: tuple[int, ...], content: bytes | memoryview) -> np.ndarray:
    """Little-endian bytes in C order -> an array. Raises Refusal. No copy where none is needed."""
    if spec.datatype == BYTES:
        return _from_lengths(spec.name, shape, content)
    wanted = prod(shape) * _dtype(spec).itemsize
    if len(content) != wanted:
        raise malformed(f"input {spec.name!r} has {len(content)} bytes; its shape takes {wanted}")
    return finite(spec, np.frombuffer(content, _dtype(spec)).reshape(shape))


def finite(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """`array`, if all of it is: in a model that quantizes as it runs, one NaN reaches the whole batch."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise malformed(f"input {spec.name!r} has values that are not finite")
    return array


def from_values(spec: TensorSpec, shape: tuple[int, ...], values: Any) -> np.ndarray:
    """Numbers, nested as the shape is or flat -> an array. Raises Refusal."""
    try:
        found = np.array(values)
    except ValueError:  # rows of different lengths
        raise malformed(f"the data of {spec.name!r} are not numbers in rows of one length") from None
    if found.dtype.kind not in "iuf" or found.size != prod(shape):
        raise malformed(f"the data of {spec.name!r} should be {prod(shape)} numbers")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused
        return finite(spec, found.astype(_dtype(spec)).reshape(shape))


def to_bytes(array: np.ndarray) -> bytes:
    """An array -> its bytes on the wire."""
    if array.dtype.kind == "O":
        return b"".join(struct.pack("<I", len(each)) + each for each in array.ravel())
    return np.ascontiguousarray(array).tobytes()


def datatype_of(array: np.ndarray) -> str:
    return BYTES if array.dtype.kind == "O" else DATATYPES[array.dtype.name]


def _dtype(spec: TensorSpec) -> np.dtype:
    return np.dtype({name: dtype for dtype, name in DATATYPES.items()}[spec.datatype]).newbyteorder("<")


def _from_lengths(name: str, shape: tuple[int, ...], content: bytes | memoryview) -> np.ndarray:
    """Each element is its length, 4 bytes little-endian, and then its bytes."""
    elements, place, view = [], 0, memoryview(content)
    while place < len(view):
        if place + 4 > len(view):
            raise malformed(f"input {name!r} ends inside the length of element {len(elements)}")
        (length,) = struct.unpack_from("<I", view, place)
        place += 4
        if place + length > len(view):
            raise malformed(f"input {name!r} ends inside element {len(elements)}, of {length} bytes")
        elements.append(bytes(view[place : place + length]))
        place += length
    return as_objects(name, shape, elements)


def as_objects(name: str, shape: tuple[int, ...], elements: Sequence[bytes]) -> np.ndarray:
    """Byte strings -> an array of objects. Raises Refusal for another number of them than the shape's."""
    if len(elements) != prod(shape):
        raise malformed(f"input {name!r} has {len(elements)} elements; its shape takes {prod(shape)}")
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)
