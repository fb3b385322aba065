"""An interpreter for the pickles that weights files are, which cannot run code.

Python's own unpickler is not used. A pickle is a small program for a stack machine; this machine knows the
instructions that weights need. Invariants:

- A global is a name looked up in an allow-list of our own constructors. Nothing is imported, no attribute is
  looked up, and a name outside the list is refused, by name, at the moment the pickle utters it.
- Constructors return plain containers and descriptions of arrays, never the object the name stands for.
- Instructions are counted, and text or bytes longer than a tensor's name stay in the file (`Run`), so memory
  does not depend on what the pickle claims. Nothing here follows references, so cycles and shared nesting
  ("billion laughs") cost what they occupy.
- Duplicating instructions, extension codes, INST, OBJ and out-of-band buffers, which no writer of weights
  emits, are refused. Protocols 0 and 1 are followed only to name what they ask for.
"""

import struct
from collections.abc import Callable, Mapping
from typing import BinaryIO

from tome_core.checkpoints import limits
from tome_core.checkpoints.limits import damaged, shown, unsafe
from tome_core.checkpoints.pickle_stack import MARK, Global, Placeholder, Run, Stack

_SCALARS = (str, int, float, bool, bytes, type(None))
_REFUSED = {
    ord("2"): "DUP",
    ord("T"): "BINSTRING (Python 2)",
    ord("U"): "SHORT_BINSTRING (Python 2)",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x8B: "LONG4",
    0x92: "NEWOBJ_EX",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
    ord("o"): "OBJ",
    ord("P"): "PERSID",
}


class Machine(Stack):
    """Runs one pickle from where `file` stands. `end` bounds every length; `persistent` answers BINPERSID."""

    def __init__(
        self,
        file: BinaryIO,
        end: int,
        allowed: Mapping[tuple[str, str], Global],
        persistent: Callable[[tuple], object] | None = None,
    ):
        super().__init__(file, end)
        self._allowed, self._persistent = allowed, persistent
        self._memo: dict[int, object] = {}
        self._text_protocol = False

    def load(self) -> object:
        """The object the pickle describes. Leaves `file` just behind the pickle.

        Raises:
            Refused: the pickle is damaged, too large, or asks for anything but plain data.
        """
        for _ in range(limits.MAX_OPCODES):
            code = self._take(1)[0]
            if code == ord("."):
                return self._finish()
            step = _STEPS.get(code)
            if step is None:
                name = _REFUSED.get(code, f"0x{code:02x}")
                raise unsafe(f"the pickle uses the instruction {name}, which no weights need")
            step(self)
        raise unsafe(f"the pickle has more than {limits.MAX_OPCODES} instructions")

    def _finish(self) -> object:
        if self._text_protocol:
            raise unsafe("the pickle has protocol 0 or 1, which no weights use")
        value = self._pop()
        if self._stack:
            raise damaged("the pickle leaves things behind")
        return value

    # -- instructions ----------------------------------------------------------------------------------------

    def _protocol(self) -> None:
        if self._take(1)[0] > 5:
            raise damaged("the pickle has an unknown protocol")

    def _integer(self) -> None:
        n = self._take(1)[0]
        if n > limits.MAX_INTEGER:
            raise unsafe(f"the pickle holds an integer of {n} bytes")
        self._stack.append(int.from_bytes(self._take(n), "little", signed=True))

    def _text_value(self) -> None:
        self._line()
        self._text_protocol = True
        self._stack.append(Placeholder())

    def _push_global(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            raise unsafe("the pickle asks for a global that has no proper name")
        found = self._allowed.get((module, name))
        if found is None:
            raise unsafe(f"the pickle asks for {shown(f'{module}.{name}')}")
        self._stack.append(found)

    def _stack_global(self) -> None:
        name = self._pop()
        self._push_global(self._pop(), name)

    def _instance(self) -> None:
        name = shown(f"{self._line()}.{self._line()}")
        raise unsafe(f"the pickle asks for {name}")

    def _call(self) -> None:
        args, function = self._pop(), self._pop()
        if type(function) is not Global or type(args) is not tuple:
            raise unsafe("the pickle calls something that is not a function")
        if function.make is None:
            raise unsafe(f"the pickle calls {function.name}")
        self._stack.append(function.make(args))

    def _build(self) -> None:
        state = self._pop()
        target = self._stack[-1] if self._stack else None
        if type(target) is dict and type(state) is dict:
            return  # attributes of an OrderedDict: torch's `_metadata`
        build = getattr(type(target), "build", None)  # only this package's own classes have one
        if build is None:
            raise unsafe("the pickle sets the state of a plain object")
        build(target, state)

    def _persistent_id(self) -> None:
        key = self._pop()
        if self._persistent is None or type(key) is not tuple:
            raise unsafe("the pickle refers to an object outside itself")
        self._stack.append(self._persistent(key))

    def _tuple(self, n: int) -> None:
        items = [self._pop() for _ in range(n)]
        self._stack.append(tuple(reversed(items)))

    def _set_items(self, items: list) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise damaged("the pickle has a name without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only scalars: hashing a deeply nested tuple would exhaust the C stack.
            if isinstance(key, Run):
                raise unsafe(f"a name is longer than {limits.MAX_KEY} bytes")
            if type(key) not in _SCALARS:
                raise unsafe("the pickle has a name that is not plain text or a number")
            if key in target:
                raise unsafe(f"the pickle has the name {shown(repr(key))} twice")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _set_marked(self) -> None:
        items = self._pop_to_mark()
        self._set_items(items)

    def _new_dict(self) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._set_items(items)

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _append_marked(self) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _remember(self, index: int) -> None:
        value = self._pop()
        self._stack.append(value)
        self._memo[index] = value

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise damaged("the pickle recalls something it never stored")
        self._stack.append(self._memo[index])

    def _line_put(self) -> None:
        self._line()
        self._text_protocol = True

    def _pop_one(self) -> None:
        if not self._stack:
            raise damaged("the pickle takes more than it put down")
        self._stack.pop()


def _push(value: object) -> Callable[[Machine], None]:
    return lambda m: m._stack.append(value)


def _number(layout: str) -> Callable[[Machine], None]:
    size = struct.calcsize(layout)
    return lambda m: m._stack.append(struct.unpack(layout, m._take(size))[0])


_STEPS: dict[int, Callable[[Machine], None]] = {
    0x80: Machine._protocol,
    0x95: lambda m: m._length(8) and None,  # FRAME: a hint for readers, its length must still be true
    ord("("): lambda m: m._stack.append(MARK),
    ord("0"): Machine._pop_one,
    ord("1"): lambda m: m._pop_to_mark() and None,
    ord("N"): _push(None),
    0x88: _push(True),
    0x89: _push(False),
    ord("J"): _number("<i"),
    ord("K"): _number("<B"),
    ord("M"): _number("<H"),
    ord("G"): _number(">d"),
    0x8A: Machine._integer,
    ord("X"): lambda m: m._data(4, text=True),
    0x8C: lambda m: m._data(1, text=True),
    0x8D: lambda m: m._data(8, text=True),
    ord("B"): lambda m: m._data(4, text=False),
    ord("C"): lambda m: m._data(1, text=False),
    0x8E: lambda m: m._data(8, text=False),
    0x96: lambda m: m._data(8, text=False),  # BYTEARRAY8
    ord("}"): lambda m: m._stack.append({}),
    ord("]"): lambda m: m._stack.append([]),
    0x8F: lambda m: m._stack.append([]),  # EMPTY_SET: a list will do, and needs no hashing
    ord(")"): _push(()),
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    ord("t"): lambda m: m._stack.append(tuple(m._pop_to_mark())),
    ord("l"): lambda m: m._stack.append(m._pop_to_mark()),
    0x91: lambda m: m._stack.append(m._pop_to_mark()),  # FROZENSET
    ord("d"): Machine._new_dict,
    ord("a"): Machine._append,
    ord("e"): Machine._append_marked,
    0x90: Machine._append_marked,  # ADDITEMS
    ord("s"): Machine._set_item,
    ord("u"): Machine._set_marked,
    ord("c"): lambda m: m._push_global(m._line(), m._line()),
    0x93: Machine._stack_global,
    ord("i"): Machine._instance,
    ord("R"): Machine._call,
    0x81: Machine._call,  # NEWOBJ: our constructors do not distinguish it
    ord("b"): Machine._build,
    ord("Q"): Machine._persistent_id,
    ord("q"): lambda m: m._remember(m._take(1)[0]),
    ord("r"): lambda m: m._remember(int.from_bytes(m._take(4), "little")),
    0x94: lambda m: m._remember(len(m._memo)),
    ord("h"): lambda m: m._recall(m._take(1)[0]),
    ord("j"): lambda m: m._recall(int.from_bytes(m._take(4), "little")),
    # Instructions of protocols 0 and 1, followed without their values so that a refusal can name the global.
    ord("I"): Machine._text_value,
    ord("L"): Machine._text_value,
    ord("F"): Machine._text_value,
    ord("S"): Machine._text_value,
    ord("V"): Machine._text_value,
    ord("g"): Machine._text_value,
    ord("p"): Machine._line_put,
}
