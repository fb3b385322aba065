"""Writers of small weights files for the tests: a pickle assembler, torch's two layouts, and zips.

The assembler emits instructions one by one, so it can write what torch writes without torch, and what no
honest program writes.
"""

import io
import json
import struct
import sys
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Name:
    """A global, pickled by name."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """REDUCE of `function` with `args`."""

    function: Any
    args: tuple


@dataclass(frozen=True)
class Built:
    """BUILD of `target` with `state`."""

    target: Any
    state: Any


@dataclass(frozen=True)
class Persistent:
    """BINPERSID of `key`."""

    key: tuple


@dataclass(frozen=True)
class Raw:
    """Instructions as they are; they must leave one object."""

    code: bytes


ORDERED = Call(Name("collections", "OrderedDict"), ())


def code_of(value: Any) -> bytes:
    """The instructions (protocol 2, plus BINBYTES) that put `value` on the stack."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(code_of, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code_of, value)) + b"e"
        case dict():
            return b"}(" + b"".join(code_of(k) + code_of(v) for k, v in value.items()) + b"u"
        case Name(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, args):
            return code_of(function) + code_of(args) + b"R"
        case Built(target, state):
            return code_of(target) + code_of(state) + b"b"
        case Persistent(key):
            return code_of(key) + b"Q"
        case Raw(code):
            return code
    raise TypeError(type(value))


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + code_of(value) + b"."


def numpy_array(shape: Any, data: Any, code: Any = "f4", order: str = "<", fortran: bool = False) -> Built:
    """A numpy array as numpy pickles it, with any lies the test wants."""
    start = Call(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "ndarray"), (0,), b"b"))
    kind = Built(Call(Name("numpy", "dtype"), (code, False, True)), (3, order, None, None, None, -1, -1, 0))
    return Built(start, (1, shape, kind, fortran, data))


STORAGE = {"f8": "Double", "f4": "Float", "f2": "Half", "bf16": "BFloat16", "i8": "Long", "i4": "Int"}
STORAGE |= {"i2": "Short", "i1": "Char", "u1": "Byte", "b1": "Bool"}


def storage(key: str, code: str, count: int, *legacy: Any) -> Persistent:
    """A reference to a storage; legacy files add None or (view key, offset, count)."""
    return Persistent(("storage", Name("torch", STORAGE[code] + "Storage"), key, "cpu", count, *legacy))


def tensor(part: Any, shape: tuple, strides: tuple, offset: Any = 0) -> Call:
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (part, offset, shape, strides, False, ORDERED))


def parameter(inner: Call) -> Call:
    return Call(Name("torch._utils", "_rebuild_parameter"), (inner, True, ORDERED))


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def torch_zip(value: Any, storages: dict[str, bytes], byteorder: bytes | None = b"little") -> bytes:
    """torch's zip layout; `value` may be the bytes of data.pkl themselves."""
    members = {"archive/data.pkl": value if isinstance(value, bytes) else pickled(value)}
    if byteorder is not None:
        members["archive/byteorder"] = byteorder
    members |= {f"archive/data/{key}": data for key, data in storages.items()}
    return zipped(members | {"archive/version": b"3\n"})


MAGIC = pickled(0x1950A86A20F9469CFC6C)
PROTOCOL = pickled(1001)
SYSTEM = pickled(
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
)


def torch_legacy(value: Any, storages: dict[str, tuple[int, bytes]]) -> bytes:
    """torch's legacy layout; `storages` maps a key to (count, data)."""
    tail = b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    return MAGIC + PROTOCOL + SYSTEM + pickled(value) + pickled(list(storages)) + tail


def safetensors(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def upper_half(values: np.ndarray) -> bytes:
    """float32 values cut to bfloat16, little endian."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


assert sys.byteorder == "little"  # the tests compare with numpy's native bytes
