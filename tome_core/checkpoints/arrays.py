"""From runs of bytes in a file to numpy arrays, every size checked before memory is taken.

A reader describes what a file holds as `Tensor`s, strided views of `Storage`s that are not read yet.
`materialise` then reads each storage once. Invariants: a view never reaches outside its storage and never has
more elements than the part of the storage it spans, so a file cannot unfold into more than it holds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from tome_core.checkpoints.limits import CHUNK, MAX_ELEMENTS, MAX_RANK, Refused, damaged, shown


@dataclass(frozen=True)
class Element:
    """A type of element: numpy code in the file (without byte order) and in memory."""

    name: str
    stored: str
    result: str

    @property
    def size(self) -> int:
        """Bytes of one element in the file."""
        return int(self.stored[1:])


ELEMENTS = {
    name: Element(name, stored, result)
    for name, stored, result in [
        ("float64", "f8", "f8"),
        ("float32", "f4", "f4"),
        ("float16", "f2", "f2"),
        ("bfloat16", "u2", "f4"),  # the upper half of a float32: widening is exact
        ("int64", "i8", "i8"),
        ("int32", "i4", "i4"),
        ("int16", "i2", "i2"),
        ("int8", "i1", "i1"),
        ("uint64", "u8", "u8"),
        ("uint32", "u4", "u4"),
        ("uint16", "u2", "u2"),
        ("uint8", "u1", "u1"),
        ("bool", "u1", "?"),
    ]
}
CODES = {np.dtype(e.result).str[1:]: e for e in ELEMENTS.values() if e.name != "bfloat16"}


@dataclass(frozen=True, eq=False)
class Storage:
    """`count` elements somewhere in the file; `open` starts reading their bytes."""

    element: Element
    count: int
    open: Callable[[], BinaryIO]
    big_endian: bool = False


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage; `offset` and `strides` count elements."""

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def checked_shape(shape: object) -> tuple[int, ...]:
    """`shape` as a tuple of plain non-negative ints, or Refused."""
    if not isinstance(shape, (tuple, list)) or len(shape) > MAX_RANK:
        raise damaged("an array has no usable shape")
    if any(type(n) is not int for n in shape):
        raise damaged("an array has a shape that is not made of integers")
    if any(n < 0 for n in shape):
        raise damaged(f"an array has the impossible shape {shown(tuple(shape), 60)}")
    if math.prod(max(n, 1) for n in shape) > MAX_ELEMENTS:
        raise damaged(f"an array claims the absurd shape {shown(tuple(shape), 60)}")
    return tuple(shape)


def dense(storage: Storage, shape: Sequence[int], fortran: bool = False) -> Tensor:
    """The whole of `storage` as an array of `shape` (already checked), in C or Fortran order."""
    if math.prod(shape) != storage.count:
        raise damaged(f"shape {shown(tuple(shape), 60)} does not fit the {storage.count} elements stored")
    strides, step = [], 1
    for n in shape if fortran else reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return Tensor(storage, tuple(shape), tuple(strides if fortran else reversed(strides)))


def strided(
    storage: Storage, start: int, count: int, offset: object, shape: object, strides: object
) -> Tensor:
    """A view of elements [start, start + count) of `storage`; Refused if it reaches outside or repeats."""
    shape = checked_shape(shape)
    if not isinstance(strides, (tuple, list)) or len(strides) != len(shape):
        raise damaged("a tensor's strides do not match its shape")
    if any(type(n) is not int or n < 0 for n in (offset, *strides)):
        raise damaged("a tensor has an impossible offset or stride")
    if 0 in shape:
        return Tensor(storage, shape, (0,) * len(shape))
    span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if offset + span > count:
        raise damaged(f"a tensor of shape {shown(shape, 60)} reaches outside its storage of {count} elements")
    if math.prod(shape) > span:
        raise Refused(
            f"a tensor of shape {shown(shape, 60)} repeats {span} stored elements; save it after .clone()"
        )
    return Tensor(storage, shape, tuple(strides), start + offset)


def _read_exactly(stream: BinaryIO, n: int) -> bytes:
    parts, missing = [], n
    while missing:
        part = stream.read(missing)
        if not part:
            raise damaged("the data of an array ends early")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decode(storage: Storage) -> np.ndarray:
    """All elements of a storage, native byte order, [count]. In chunks, so that nothing is held twice."""
    element = storage.element
    stored = np.dtype(element.stored).newbyteorder(">" if storage.big_endian else "<")
    result = np.empty(storage.count, element.result)
    step = CHUNK // element.size
    with storage.open() as stream:
        for start in range(0, storage.count, step):
            n = min(step, storage.count - start)
            values = np.frombuffer(_read_exactly(stream, n * element.size), stored)
            if element.name == "bfloat16":
                values = (values.astype("u4") << 16).view("f4")
            elif element.name == "bool":
                values = values != 0
            result[start : start + n] = values
        if stream.read(1):  # also makes a zip member check its checksum
            raise damaged("an array is followed by bytes that belong to nothing")
    return result


def materialise(tensors: Mapping[str, Tensor], budget: int) -> dict[str, np.ndarray]:
    """Read every tensor. Tensors that share a storage in the file share memory; views may be non-contiguous.

    Raises:
        Refused: all storages need more than `budget` bytes (nothing is read then), or data is missing.
    """
    storages = {id(t.storage): t.storage for t in tensors.values()}
    need = sum(s.count * np.dtype(s.element.result).itemsize for s in storages.values())
    if need > budget:
        raise Refused(
            f"it unfolds to {need >> 20} MiB, more than the file can hold; get it from a trusted source"
        )
    flat: dict[int, np.ndarray] = {}
    arrays = {}
    for name, tensor in tensors.items():
        if tensor.count == 0:
            arrays[name] = np.zeros(tensor.shape, tensor.storage.element.result)
            continue
        key = id(tensor.storage)
        if key not in flat:
            flat[key] = _decode(tensor.storage)
        base = flat[key]
        strides = [n * base.itemsize for n in tensor.strides]
        arrays[name] = np.ndarray(tensor.shape, base.dtype, base, tensor.offset * base.itemsize, strides)
    return arrays
