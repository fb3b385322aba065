"""The globals that any weights pickle may name, with our inert stand-ins: containers and numpy arrays."""

import io
import math

from tome_core.checkpoints.arrays import CODES, ELEMENTS, Element, Storage, Tensor, checked_shape, dense
from tome_core.checkpoints.limits import damaged, shown, unsafe
from tome_core.checkpoints.pickles import Global, Placeholder, Run
from tome_core.checkpoints.streams import Latin1Window, Window


class Latin1:
    """Bytes written as text, `_codecs.encode(text, 'latin1')`: how protocol 2 stores bytes."""

    __slots__ = ("run",)

    def __init__(self, run: Run):
        self.run = run


class ArrayType:
    """A numpy dtype of the pickle: an element and, once built, a byte order."""

    __slots__ = ("element", "big_endian")

    def __init__(self, element: Element):
        self.element, self.big_endian = element, False

    def build(self, state: object) -> None:
        known = type(state) is tuple and len(state) >= 5 and type(state[1]) is str
        if not known or state[1] not in ("<", ">", "=", "|") or state[2:5] != (None, None, None):
            raise unsafe("the pickle holds an array whose elements are not plain numbers")
        self.big_endian = state[1] == ">"


class Array:
    """A numpy array under construction; `tensor` is set once its state is known."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor | None = None):
        self.tensor = tensor

    def build(self, state: object) -> None:
        if self.tensor is not None or type(state) is not tuple or len(state) != 5:
            raise unsafe("the pickle holds an array with an unknown layout")
        _, shape, kind, fortran, data = state
        self.tensor = _array(data, kind, shape, fortran is True or fortran == 1 and type(fortran) is int)


def _array(data: object, kind: object, shape: object, fortran: bool) -> Tensor:
    if type(kind) is not ArrayType:
        raise unsafe("the pickle holds an array without a type")
    shape = checked_shape(shape)
    count = math.prod(shape)
    need = count * kind.element.size
    if type(data) is bytes:
        fits, opener = len(data) == need, lambda: io.BytesIO(data)
    elif type(data) is Run and not data.text:
        fits, opener = data.length == need, lambda: Window(data.file, data.start, data.length)
    elif type(data) is Latin1:  # one or two bytes of UTF-8 for each byte; the exact count shows on reading
        run = data.run
        fits = run.length // 2 <= need <= run.length
        opener = lambda: Latin1Window(run.file, run.start, run.length)  # noqa: E731
    else:
        raise unsafe("the pickle holds an array of objects")
    if not fits:
        raise damaged(f"an array of shape {shown(shape, 60)} needs {need} bytes, the file has others")
    return dense(Storage(kind.element, count, opener, kind.big_endian), shape, fortran)


def _unpack(args: tuple, n: int, what: str) -> tuple:
    if len(args) != n:
        raise unsafe(f"the pickle calls {what} with {len(args)} arguments")
    return args


def _placeholder(args: tuple) -> Placeholder:
    return Placeholder()


def _empty_dict(args: tuple) -> dict:
    if args:
        raise unsafe("the pickle fills an OrderedDict the way Python 2 did")
    return {}


def _defaultdict(args: tuple) -> dict:
    return {}


def _one(kind: type):
    """The only argument itself, never a copy: copies of one large container would multiply memory."""

    def same(args: tuple) -> object:
        if len(args) != 1 or type(args[0]) is not kind:
            raise unsafe(f"the pickle converts something that is not a plain {kind.__name__}")
        return args[0]

    return same


def _empty_bytes(args: tuple) -> bytes:
    _unpack(args, 0, "bytes")
    return b""


def _encode(args: tuple) -> bytes | Latin1:
    text, codec = _unpack(args, 2, "_codecs.encode")
    if codec != "latin1" or not (type(text) is str or type(text) is Run and text.text):
        raise unsafe("the pickle encodes something that is not latin-1 text")
    return text.encode("latin-1") if type(text) is str else Latin1(text)


def plain_globals(uint16: str = "uint16") -> dict[tuple[str, str], Global]:
    """The allow-list of Paddle and torch files. `uint16` names the element that numpy's uint16 stands for."""
    meanings = {**CODES, "u2": ELEMENTS[uint16]}
    ndarray = Global("numpy.ndarray")

    def dtype(args: tuple) -> ArrayType:
        code = args[0] if args else None
        element = meanings.get(code) if type(code) is str else None
        if element is None:
            what = shown(repr(code), 40) if type(code) is str else "of an unknown kind"
            raise unsafe(f"the pickle holds an array of type {what}, not of numbers")
        return ArrayType(element)

    def reconstruct(args: tuple) -> Array:
        kind, _, _ = _unpack(args, 3, "numpy._reconstruct")
        if kind is not ndarray:
            raise unsafe("the pickle holds an array that is not a plain numpy.ndarray")
        return Array()

    def frombuffer(args: tuple) -> Array:
        data, kind, shape, order = _unpack(args, 4, "numpy._frombuffer")
        return Array(_array(data, kind, shape, type(order) is str and order == "F"))

    makers = {
        "collections.OrderedDict": _empty_dict,
        "collections.defaultdict": _defaultdict,
        "collections.Counter": _one(dict),
        "argparse.Namespace": _placeholder,  # MAE and DeiT files carry their command line
        "_codecs.encode": _encode,
        "numpy.dtype": dtype,
    }
    for path in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        makers[f"pathlib.{path}"] = _placeholder
    for core in ("numpy.core", "numpy._core"):
        makers[f"{core}.multiarray._reconstruct"] = reconstruct
        makers[f"{core}.multiarray.scalar"] = _placeholder
        makers[f"{core}.numeric._frombuffer"] = frombuffer
    for builtins in ("builtins", "__builtin__"):
        makers[f"{builtins}.tuple"] = _one(tuple)
        makers[f"{builtins}.set"] = _one(list)
        makers[f"{builtins}.frozenset"] = _one(list)
        makers[f"{builtins}.bytes"] = _empty_bytes
        for passive in ("dict", "list", "int", "float", "str", "bool"):
            makers[f"{builtins}.{passive}"] = None
    table = {tuple(name.rsplit(".", 1)): Global(name, make) for name, make in makers.items()}
    table["numpy", "ndarray"] = ndarray
    return table
