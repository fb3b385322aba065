"""Pickles that would run code in Python's own unpickler: refused by name, and nothing happens.

Each carries a payload that would create a file. Where no torch is needed, the test first proves that the
payload is live by giving it to the real unpickler.
"""

import copyreg
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from tome_core.checkpoints import read_checkpoint
from tome_core.errors import CheckpointError

from .watch import watched
from .writers import (
    MAGIC,
    ORDERED,
    PROTOCOL,
    SYSTEM,
    Built,
    Call,
    Name,
    Persistent,
    Raw,
    code_of,
    npy,
    numpy_array,
    pickled,
    storage,
    tensor,
    torch_legacy,
    torch_zip,
    zipped,
)

GOOD = numpy_array((2,), np.ones(2, "f4").tobytes())
TORCH = tensor(storage("0", "f4", 2), (2,), (1,))
ONES = {"0": np.ones(2, "f4").tobytes()}


def system(trace: Path) -> Call:
    return Call(Name("os", "system"), (f"touch {trace}",))


def text4(text: str) -> bytes:
    """SHORT_BINUNICODE."""
    data = text.encode()
    return b"\x8c" + bytes([len(data)]) + data


def python(trace: Path) -> str:
    return f"__import__('pathlib').Path({str(trace)!r}).touch()"


def deferred(trace: Path) -> Call:
    """getattr(getattr(builtins, '__import__')('os'), 'system')(...), without naming os.system."""
    module = Call(Name("importlib", "import_module"), ("os",))
    return Call(Call(Name("builtins", "getattr"), (module, "system")), (f"touch {trace}",))


# name -> (function of the trace giving the pickle, what the error must name, whether pickle.loads runs it)
PICKLES = {
    "reduce": (lambda t: pickled(system(t)), "os.system", True),
    "posix": (lambda t: pickled(Call(Name("posix", "system"), (f"touch {t}",))), "posix.system", True),
    "eval": (lambda t: pickled(Call(Name("builtins", "eval"), (python(t),))), "builtins.eval", True),
    "eval2": (lambda t: pickled(Call(Name("__builtin__", "eval"), (python(t),))), "__builtin__.eval", True),
    "exec": (lambda t: pickled(Call(Name("builtins", "exec"), (python(t),))), "builtins.exec", True),
    "copy": (
        lambda t: pickled(Call(Name("shutil", "copyfile"), (__file__, str(t)))),
        "shutil.copyfile",
        True,
    ),
    "create": (lambda t: pickled(Call(Name("os", "open"), (str(t), os.O_CREAT))), "os.open", True),
    "subprocess": (
        lambda t: pickled(Call(Name("subprocess", "call"), (["touch", str(t)],))),
        "subprocess.call",
        True,
    ),
    "getattr": (lambda t: pickled(deferred(t)), "builtins.getattr", True),
    "import": (
        lambda t: pickled([Call(Name("importlib", "import_module"), ("os",)), system(t)]),
        "importlib.import_module",
        True,
    ),
    "partial": (
        lambda t: pickled(Call(Call(Name("functools", "partial"), (Name("os", "system"), f"touch {t}")), ())),
        "functools.partial",
        True,
    ),
    "runstring": (
        lambda t: pickled(Call(Name("numpy.testing._private.utils", "runstring"), (python(t), {}))),
        "numpy.testing._private.utils.runstring",
        True,
    ),
    "numpy-load": (
        lambda t: pickled([Call(Name("numpy", "fromfile"), ("/dev/null",)), system(t)]),
        "numpy.fromfile",
        True,
    ),
    "stack-global": (
        lambda t: b"\x80\x04" + text4("os") + text4("system") + b"\x93" + text4(f"touch {t}") + b"\x85R.",
        "os.system",
        True,
    ),
    "dotted": (
        lambda t: (
            b"\x80\x04"
            + text4("collections")
            + text4("namedtuple.__globals__.get")
            + b"\x93"
            + code_of("x")
            + b"\x85R0"
            + code_of(system(t))
            + b"."
        ),
        "collections.namedtuple.__globals__.get",
        True,
    ),
    "protocol-0": (lambda t: f"cos\nsystem\n(S'touch {t}'\ntR.".encode(), "os.system", True),
    "protocol-0-memo": (
        lambda t: f"(dp0\nS'w'\np1\ncposix\nsystem\np2\n(S'touch {t}'\np3\ntp4\nRp5\ns.".encode(),
        "posix.system",
        True,
    ),
    "inst": (lambda t: f"(S'touch {t}'\nios\nsystem\n.".encode(), "os.system", True),
    "inst-2": (lambda t: b"\x80\x02(" + code_of(f"touch {t}") + b"ios\nsystem\n.", "os.system", True),
    "obj": (
        lambda t: b"\x80\x02(csubprocess\ncall\n" + code_of(["touch", str(t)]) + b"o.",
        "subprocess.call",
        True,
    ),
    "obj-allowed-class": (
        lambda t: (
            b"\x80\x02(" + code_of(Name("collections", "OrderedDict")) + b"o0" + code_of(system(t)) + b"."
        ),
        "OBJ",
        True,
    ),
    "newobj": (
        lambda t: b"\x80\x02" + code_of(Name("subprocess", "Popen")) + b")\x810" + code_of(system(t)) + b".",
        "subprocess.Popen",
        True,
    ),
    "newobj-ex": (
        lambda t: (
            b"\x80\x04" + code_of(Name("collections", "OrderedDict")) + b")}\x920" + code_of(system(t)) + b"."
        ),
        "NEWOBJ_EX",
        True,
    ),
    "after-memo": (
        lambda t: (
            b"\x80\x02" + code_of(Name("os", "system")) + b"q\x010h\x01" + code_of((f"touch {t}",)) + b"R."
        ),
        "os.system",
        True,
    ),
    "dup": (lambda t: b"\x80\x02}20" + code_of(system(t)) + b".", "DUP", True),
    "in-a-value": (lambda t: pickled({"w": GOOD, "x": system(t)}), "os.system", True),
    "in-a-name": (lambda t: pickled({"w": GOOD, system(t): 1}), "os.system", True),
    "in-the-optimizer": (
        lambda t: pickled({"model": {"w": GOOD}, "optimizer": [system(t)]}),
        "os.system",
        True,
    ),
    "in-a-namespace": (
        lambda t: pickled(Built(Call(Name("argparse", "Namespace"), ()), {"a": system(t)})),
        "os.system",
        True,
    ),
    "in-the-arguments-of-a-good-call": (
        lambda t: pickled(Call(Name("collections", "OrderedDict"), ([["a", system(t)]],))),
        "os.system",
        True,
    ),
    "in-the-state-of-an-array": (
        lambda t: pickled({"w": numpy_array((1,), [system(t)], "O", "|")}),
        "array of type 'O'",
        True,
    ),
    "in-the-part-table": (
        lambda t: pickled({"w": GOOD, "UnpackBigParamInfor@@": {"w": system(t)}}),
        "os.system",
        True,
    ),
    "setstate": (
        lambda t: pickled(Built(Call(Name("types", "SimpleNamespace"), ()), {"__setstate__": system(t)})),
        "types.SimpleNamespace",
        True,
    ),
    "build-a-list": (lambda t: b"\x80\x02]}b0" + code_of(system(t)) + b".", "state of a plain object", False),
    "set-item-of-an-array": (
        lambda t: b"\x80\x02" + code_of(GOOD) + code_of(0) + code_of(1.5) + b"s0" + code_of(system(t)) + b".",
        "not a plain dict",
        True,
    ),
    "paddle-dense-tensor": (
        lambda t: pickled(Call(Name("builtins", "eval"), ("data", {"data": system(t)}))),
        "builtins.eval",
        True,
    ),
    "call-a-string": (
        lambda t: pickled({"w": Call("os.system", (f"touch {t}",))}),
        "calls something that is not a function",
        False,
    ),
    "call-numpy-ndarray": (
        lambda t: pickled([Call(Name("numpy", "ndarray"), ((2,),)), system(t)]),
        "numpy.ndarray",
        True,
    ),
    "persistent": (lambda t: pickled({"w": Persistent(("storage", system(t)))}), "os.system", False),
    "persistent-in-paddle": (
        lambda t: b"\x80\x02" + code_of(("storage", 1)) + b"Q0" + code_of(system(t)) + b".",
        "refers to an object outside itself",
        False,
    ),
    "line-break-in-a-name": (
        lambda t: (
            b"\x80\x04" + text4("os\nsystem") + text4("x\u2028y") + b"\x930" + code_of(system(t)) + b"."
        ),
        r"os\nsystem.x\u2028y",
        False,
    ),
    "codecs": (
        lambda t: pickled([Call(Name("_codecs", "decode"), (b"x", "unicode_escape")), system(t)]),
        "_codecs.decode",
        True,
    ),
    "codec-of-its-own": (
        lambda t: pickled([Call(Name("_codecs", "encode"), ("x", "idna")), system(t)]),
        "encodes something",
        True,
    ),
}

# Only a torch file can hold these. name -> (function of the trace giving the file, what the error must name)
TORCH_FILES = {
    "zip": (lambda t: torch_zip({"w": TORCH, "x": system(t)}, ONES), "os.system"),
    "zip-hooks": (
        lambda t: torch_zip(
            Call(Name("torch._utils", "_rebuild_tensor_v2"), (*TORCH.args[:5], system(t))), ONES
        ),
        "os.system",
    ),
    "zip-metadata": (lambda t: torch_zip(Built(ORDERED, {"_metadata": system(t)}), ONES), "os.system"),
    "zip-load-from-bytes": (
        lambda t: torch_zip(Call(Name("torch.storage", "_load_from_bytes"), (pickled(system(t)),)), {}),
        "torch.storage._load_from_bytes",
    ),
    "zip-hub": (
        lambda t: torch_zip([Call(Name("torch.hub", "load"), ("a/b",)), system(t)], {}),
        "torch.hub.load",
    ),
    "zip-whole-model": (
        lambda t: torch_zip([Raw(b"ctorch.nn.modules.linear\nLinear\n)\x81"), system(t)], {}),
        "torch.nn.modules.linear.Linear",
    ),
    "zip-module-id": (
        lambda t: torch_zip([Persistent(("module", Name("torch", "FloatStorage"), "a.py")), system(t)], {}),
        "refers to something that is not a storage",
    ),
    "zip-storage-of-code": (
        lambda t: torch_zip({"w": Persistent(("storage", Name("os", "system"), "0", "cpu", 2))}, ONES),
        "os.system",
    ),
    "zip-id-is-text": (
        lambda t: torch_zip([Persistent("0"), system(t)], ONES),
        "refers to an object outside itself",
    ),
    "legacy": (
        lambda t: torch_legacy({"w": tensor(storage("0", "f4", 2, None), (2,), (1,)), "x": system(t)}, {}),
        "os.system",
    ),
    "legacy-protocol": (lambda t: MAGIC + pickled(system(t)), "os.system"),
    "legacy-system": (lambda t: MAGIC + PROTOCOL + pickled({"a": system(t)}), "os.system"),
    "legacy-keys": (lambda t: MAGIC + PROTOCOL + SYSTEM + pickled({}) + pickled([system(t)]), "os.system"),
    "legacy-keys-are-allowed-globals": (
        lambda t: MAGIC + PROTOCOL + SYSTEM + pickled({}) + pickled([ORDERED]),
        "collections.OrderedDict",
    ),
}


class _System:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def refused(path: Path, trace: Path, names: str) -> None:
    """Reading `path` fails with one line that names the file and `names`, and does nothing else."""
    with watched() as seen, pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and names in message and message.isprintable(), message
    assert not trace.exists()
    assert not seen


@pytest.mark.parametrize("extension", [".pdparams", ".pth"])
@pytest.mark.parametrize("case", PICKLES)
def test_pickles(tmp_path, case, extension):
    make, names, live = PICKLES[case]
    trace = tmp_path / "trace"
    data = make(trace)
    if live:
        try:
            pickle.loads(data)
        except Exception:
            pass  # some end in an error, but only after the payload has run
        if trace.exists():
            trace.unlink()
        else:
            pytest.fail("the payload is not live, so the test proves nothing")
    path = tmp_path / f"model{extension}"
    path.write_bytes(data)
    refused(path, trace, names)


@pytest.mark.parametrize("case", TORCH_FILES)
def test_torch_files(tmp_path, case):
    make, names = TORCH_FILES[case]
    path = tmp_path / "model.pth"
    path.write_bytes(make(tmp_path / "trace"))
    refused(path, tmp_path / "trace", names)


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_extension_registry_is_not_consulted(tmp_path, opcode):
    trace = tmp_path / "trace"
    data = b"\x80\x02" + opcode + code_of((f"touch {trace}",)) + b"R."
    path = tmp_path / "model.pdparams"
    path.write_bytes(data)
    copyreg.add_extension("os", "system", 0xF0)
    try:
        pickle.loads(data)
        assert trace.exists(), "the payload is not live, so the test proves nothing"
        trace.unlink()
        refused(path, trace, "EXT")
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


def test_npz_with_a_pickled_array(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "model.npz"
    path.write_bytes(zipped({"w.npy": npy(np.array([_System(trace)], object))}))
    np.load(path, allow_pickle=True)["w"]
    assert trace.exists(), "the payload is not live, so the test proves nothing"
    trace.unlink()
    refused(path, trace, "type |O")


def test_npz_with_a_header_that_is_an_expression(tmp_path):
    trace = tmp_path / "trace"
    header = (
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').system('touch {trace}'),), }}"
    )
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    path = tmp_path / "model.npz"
    path.write_bytes(zipped({"w.npy": data}))
    refused(path, trace, "not a plain array")


def test_npz_with_a_pickle_member(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "model.npz"
    path.write_bytes(zipped({"w.npy": npy(np.ones(2)), "x.pkl": pickled(system(trace))}))
    refused(path, trace, "zip file without weights")
