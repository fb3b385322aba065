"""`.npz`: a zip of `.npy` members, as numpy and Google's AugReg release write them.

The header of a member is matched against the one form that numpy writes, so nothing in it is evaluated.
jax's bfloat16 arrives as the opaque type `|V2` and is read as bfloat16.
"""

import math
import re
from typing import BinaryIO

from tome_core.checkpoints.arrays import CODES, ELEMENTS, Storage, Tensor, checked_shape, dense
from tome_core.checkpoints.limits import MAX_NPY_HEADER, damaged, shown, unsafe
from tome_core.checkpoints.zips import Zip

_HEADER = re.compile(
    r"\{\s*'descr':\s*'([^']{2,40})',\s*'fortran_order':\s*(True|False),\s*"
    r"'shape':\s*\(((?:[0-9]{1,19}L?,? ?)*)\),?\s*\}\s*",
    re.ASCII,
)


def _header(stream: BinaryIO, name: str) -> tuple[int, str, bool, tuple[int, ...]]:
    """(bytes of header, descr, fortran order, shape) of an npy member."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise damaged(f"{shown(name)} is not a numpy array")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > MAX_NPY_HEADER:
        raise unsafe(f"{shown(name)} claims a header of {length} bytes")
    match = _HEADER.fullmatch(stream.read(length).decode("latin-1"))
    if match is None:
        raise unsafe(f"{shown(name)} is not a plain array of numbers")
    shape = checked_shape([int(n) for n in re.findall("[0-9]+", match[3])])
    return 8 + width + length, match[1], match[2] == "True", shape


def _tensor(archive: Zip, member: str, name: str) -> Tensor:
    with archive.open(member) as stream:
        skip, descr, fortran, shape = _header(stream, name)
    element = ELEMENTS["bfloat16"] if descr == "|V2" else CODES.get(descr[1:])
    if element is None or descr[0] not in "<>|=":
        raise unsafe(f"{shown(name)} has type {shown(descr, 40)}, not numbers")
    count = math.prod(shape)
    if archive.sizes[member] != skip + count * element.size:
        raise damaged(f"{shown(name)} of shape {shown(shape, 60)} does not fit the bytes stored for it")

    def opener() -> BinaryIO:
        stream = archive.open(member)
        stream.read(skip)
        return stream

    return dense(Storage(element, count, opener, descr[0] == ">"), shape, fortran)


def read_npz(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """The arrays of the file by name. Raises Refused."""
    archive = Zip(file, size, compressed=True)
    tensors = {}
    for member in archive.sizes:
        name = member.removesuffix(".npy")
        if name == member:
            raise unsafe(f"the zip holds {shown(member)}, which is not a numpy array")
        tensors[name] = _tensor(archive, member, name)
    return tensors
