"""torch's two layouts, read without torch.

Zip (1.6 and later): `<root>/data.pkl` describes the object, `<root>/data/<key>` holds each storage, stored
uncompressed, in the byte order that `<root>/byteorder` names.
Legacy: five pickles (magic number, protocol, system, the object, the storage keys), then for each key an
int64 count and the elements, little endian whatever the system pickle says: torch converts on writing.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from tome_core.checkpoints.arrays import ELEMENTS, Element, Storage, Tensor, strided
from tome_core.checkpoints.limits import MAX_PICKLE_MEMBER, Refused, damaged, shown, unsafe
from tome_core.checkpoints.pickles import Global, Machine, Placeholder
from tome_core.checkpoints.plain_pickles import plain_globals
from tome_core.checkpoints.streams import Window
from tome_core.checkpoints.zips import Zip

MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # the pickled magic number, behind the two protocol bytes
_PROTOCOL = 1001

_STORAGES: dict[Global, Element] = {
    Global(f"torch.{kind}Storage"): ELEMENTS[name]
    for kind, name in [
        ("Double", "float64"),
        ("Float", "float32"),
        ("Half", "float16"),
        ("BFloat16", "bfloat16"),
        ("Long", "int64"),
        ("Int", "int32"),
        ("Short", "int16"),
        ("Char", "int8"),
        ("Byte", "uint8"),
        ("Bool", "bool"),
    ]
}


@dataclass(frozen=True, eq=False)
class _Part:
    """What a persistent id stands for: `count` elements of a storage from `start`."""

    storage: Storage
    start: int
    count: int


def _rebuild_tensor(args: tuple) -> Tensor:
    if len(args) < 4 or type(args[0]) is not _Part:
        raise unsafe("the pickle rebuilds a tensor from something that is not a storage")
    part, offset, shape, strides = args[:4]
    return strided(part.storage, part.start, part.count, offset, shape, strides)


def _rebuild_parameter(args: tuple) -> Tensor:
    if not args or type(args[0]) is not Tensor:
        raise unsafe("the pickle rebuilds a parameter from something that is not a tensor")
    return args[0]


def _size(args: tuple) -> tuple:
    if len(args) != 1 or type(args[0]) is not tuple:
        raise unsafe("the pickle holds a shape that is not a tuple")
    return args[0]


def _torch_globals() -> dict[tuple[str, str], Global]:
    table = plain_globals()
    for module, name, make in [
        ("torch._utils", "_rebuild_tensor", _rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2", _rebuild_tensor),
        ("torch._utils", "_rebuild_parameter", _rebuild_parameter),
        ("torch", "Size", _size),
        ("torch", "device", lambda args: Placeholder()),
        *(("torch", name, None) for name in ELEMENTS),
    ]:
        table[module, name] = Global(f"{module}.{name}", make)
    for kind in _STORAGES:
        table["torch", kind.name.removeprefix("torch.")] = kind
    return table


class _Storages:
    """Answers persistent ids; a storage is described once, however often it is referred to."""

    def __init__(self, describe: Callable[[str, Element, int], Storage]):
        self._describe = describe
        self.known: dict[str, Storage] = {}

    def __call__(self, key: tuple) -> _Part:
        kind = key[1] if len(key) in (5, 6) and key[0] == "storage" else None
        if type(kind) is not Global or kind not in _STORAGES:
            raise unsafe("the pickle refers to something that is not a storage of numbers")
        element, name, count = _STORAGES[kind], key[2], key[4]
        if type(name) is not str or not name.isalnum() or type(count) is not int or count < 0:
            raise unsafe("the pickle refers to a storage that cannot exist")
        storage = self.known.get(name)
        if storage is None:
            storage = self.known[name] = self._describe(name, element, count)
        if storage.element is not element or storage.count != count:
            raise unsafe(f"the pickle describes storage {shown(name)} in two ways")
        start = 0
        if len(key) == 6 and key[5] is not None:
            start, count = _view(key[5], count)
        return _Part(storage, start, count)


def _view(view: object, count: int) -> tuple[int, int]:
    """(start, count) of a legacy view of a storage of `count` elements."""
    if type(view) is not tuple or len(view) != 3 or any(type(n) is not int or n < 0 for n in view[1:]):
        raise unsafe("the pickle refers to a storage that cannot exist")
    if view[1] + view[2] > count:
        raise damaged(f"a view reaches outside its storage of {count} elements")
    return view[1], view[2]


def read_torch_zip(file: BinaryIO, size: int) -> object:
    """The object in the file, tensors as `Tensor`. Raises Refused."""
    archive = Zip(file, size, compressed=False)
    pickles = [name for name in archive.sizes if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise unsafe(f"the zip holds {len(pickles)} pickles instead of one")
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in archive.sizes:
        raise Refused("it is a TorchScript program, not weights; save its state_dict() with torch.save")
    order = archive.read(root + "byteorder", 16) if root + "byteorder" in archive.sizes else b"little"
    if order not in (b"little", b"big"):
        raise damaged("the file names an unknown byte order")

    def describe(key: str, element: Element, count: int) -> Storage:
        member = f"{root}data/{key}"
        if archive.sizes.get(member) != count * element.size:
            raise damaged(f"storage {shown(key)} is missing or not the {count * element.size} bytes claimed")
        return Storage(element, count, lambda: archive.open(member), order == b"big")

    data = archive.read(pickles[0], MAX_PICKLE_MEMBER)
    stream = io.BytesIO(data)
    value = Machine(stream, len(data), _torch_globals(), _Storages(describe)).load()
    if stream.tell() != len(data):
        raise damaged("bytes follow the end of the pickle")
    return value


def read_torch_legacy(file: BinaryIO, size: int) -> object:
    """The object in the file, tensors as `Tensor`. Raises Refused."""
    starts: dict[str, int] = {}

    def describe(key: str, element: Element, count: int) -> Storage:
        length = count * element.size
        if length > size:
            raise damaged(f"storage {shown(key)} claims {length} bytes, more than the whole file")
        return Storage(element, count, lambda: Window(file, starts[key], length))

    Machine(file, size, {}).load()  # the magic number, by which the file was recognised
    protocol = Machine(file, size, {}).load()
    system = Machine(file, size, {}).load()
    if type(protocol) is not int or protocol != _PROTOCOL or type(system) is not dict:
        raise damaged("it is not the legacy torch layout it begins as")
    storages = _Storages(describe)
    value = Machine(file, size, _torch_globals(), storages).load()
    keys = Machine(file, size, {}).load()
    if type(keys) is not list or any(type(key) is not str for key in keys) or len(set(keys)) != len(keys):
        raise damaged("the list of storages is damaged")
    if set(keys) != set(storages.known):
        raise damaged("the list of storages is not the one that the tensors use")
    position = file.tell()
    for key in keys:
        storage = storages.known[key]
        file.seek(position)
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise damaged(f"storage {shown(key)} does not hold the {storage.count} elements claimed")
        starts[key] = position + 8
        position += 8 + storage.count * storage.element.size
    if position != size:
        raise damaged("the data does not end where the file ends")
    return value
