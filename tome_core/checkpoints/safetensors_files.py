"""`.safetensors`: eight bytes of length, a JSON header, then the arrays, little endian, back to back.

Parsed here because the safetensors library cannot hand bfloat16 to numpy, and silently keeps the last of two
entries with the same name.
"""

import json
import math
from functools import partial
from typing import BinaryIO

from tome_core.checkpoints.arrays import ELEMENTS, Storage, Tensor, checked_shape, dense
from tome_core.checkpoints.limits import MAX_JSON, Refused, damaged, shown, unsafe
from tome_core.checkpoints.streams import Window

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise unsafe("the header has a name twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise unsafe(f"the header holds an integer of {len(digits)} digits")
    return int(digits)


def read_safetensors(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """The arrays of the file by name. Raises Refused, or ValueError or RecursionError for broken JSON."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    data = size - 8 - length
    if size < 8 or data < 0:
        raise damaged("it is shorter than its header claims")
    if length > MAX_JSON:
        raise unsafe(f"it claims a header of {length >> 20} MiB")
    header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_object, parse_int=_integer)
    if type(header) is not dict:
        raise damaged("its header is not a table of arrays")
    tensors, extents = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise damaged(f"the entry of {shown(name)} in the header is damaged")
        kind, offsets, shape = entry["dtype"], entry["data_offsets"], checked_shape(entry["shape"])
        element = ELEMENTS.get(_NAMES.get(kind, "")) if type(kind) is str else None
        if element is None:
            raise Refused(
                f"{shown(name)} has an element type that is not supported; save it as F32, F16 or BF16"
            )
        pair = type(offsets) is list and len(offsets) == 2
        if not pair or any(type(n) is not int or n < 0 for n in offsets):
            raise damaged(f"the place of {shown(name)} in the file is damaged")
        begin, end = offsets
        count = math.prod(shape)
        if end - begin != count * element.size or end > data:
            raise damaged(f"{shown(name)} of shape {shown(shape, 60)} does not fit the bytes stored for it")
        opener = partial(Window, file, 8 + length + begin, end - begin)
        tensors[name] = dense(Storage(element, count, opener), shape)
        extents.append((begin, end))
    position = 0
    for begin, end in sorted(extents):
        if begin != position:
            raise damaged("its arrays overlap or leave holes")
        position = end
    if position != data:
        raise damaged("its arrays do not end where the file ends")
    return tensors
