"""`.pdparams`: one pickle of names and numpy arrays, as `paddle.save` writes it (protocols 2 to 5).

Tensors are numpy arrays or `(parameter name, array)` pairs; numpy's uint16 is how Paddle writes bfloat16.
Protocols 2 and 3 cut arrays of 1 GiB and more into flat parts named `key@@.0`, `key@@.1`, ... and record that
under `UnpackBigParamInfor@@` (the spelling is Paddle's).
"""

import math
from functools import partial
from typing import BinaryIO

from tome_core.checkpoints.arrays import Storage, Tensor, checked_shape, dense
from tome_core.checkpoints.limits import damaged, shown
from tome_core.checkpoints.pickles import Machine
from tome_core.checkpoints.plain_pickles import Array, plain_globals
from tome_core.checkpoints.streams import Joined

NAMES = "StructuredToParameterName@@"
PARTS = "UnpackBigParamInfor@@"


def read_pdparams(file: BinaryIO, size: int) -> object:
    """The object in the file, arrays as `Array`. Raises Refused."""
    value = Machine(file, size, plain_globals(uint16="bfloat16")).load()
    if file.tell() != size:
        raise damaged(f"{size - file.tell()} bytes follow the end of the pickle")
    return value


def tensor_of(value: object) -> Tensor | None:
    """The tensor that a value of a state dict holds, or None."""
    if type(value) is tuple and len(value) == 2 and type(value[0]) is str:
        value = value[1]
    if type(value) is Array:
        if value.tensor is None:
            raise damaged("an array has no contents")
        return value.tensor
    return value if type(value) is Tensor else None


def join_parts(tensors: dict[str, Tensor], table: object) -> dict[str, Tensor]:
    """`tensors` with the parts listed in Paddle's table put together again."""
    if type(table) is not dict:
        raise damaged("the table of split arrays is damaged")
    joined = dict(tensors)
    for key, entry in table.items():
        names = entry.get("slices") if type(entry) is dict else None
        if type(key) is not str or key in joined or type(names) is not list or not names:
            raise damaged("the table of split arrays is damaged")
        parts = [joined.pop(name, None) if type(name) is str else None for name in names]
        if any(p is None or len(p.shape) != 1 or p.count != p.storage.count for p in parts):
            raise damaged(f"a part of the split array {shown(key)} is missing or damaged")
        first, storages = parts[0].storage, [p.storage for p in parts]
        if any(s.element != first.element or s.big_endian != first.big_endian for s in storages):
            raise damaged(f"the parts of the split array {shown(key)} differ in type")
        shape, count = checked_shape(entry.get("OriginShape")), sum(s.count for s in storages)
        if math.prod(shape) != count:
            raise damaged(f"the parts of the split array {shown(key)} do not fill its shape")
        openers = [s.open for s in storages]
        whole = Storage(first.element, count, partial(Joined, openers), first.big_endian)
        joined[key] = dense(whole, shape)
    return joined
