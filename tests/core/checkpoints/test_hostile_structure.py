"""Files that lie about sizes, repeat themselves, are damaged, or are something else altogether."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest

from tome_core.checkpoints import read_checkpoint
from tome_core.errors import CheckpointError

from .watch import watched
from .writers import (
    MAGIC,
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
    safetensors,
    storage,
    tensor,
    torch_legacy,
    torch_zip,
    zipped,
)

ONES = np.ones(6, "f4").tobytes()
GOOD = numpy_array((6,), ONES)


def w(value) -> bytes:
    """A state dict with one bad entry next to a good one."""
    return pickled({"good": GOOD, "w": value})


def view(shape, strides, offset=0) -> bytes:
    return torch_zip({"w": tensor(storage("0", "f4", 6), shape, strides, offset)}, {"0": ONES})


def kind(code, state=(3, "<", None, None, None, -1, -1, 0)) -> Built:
    return Built(Call(Name("numpy", "dtype"), (code, False, True)), state)


def array_of(dtype) -> Built:
    target = Call(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "ndarray"), (0,), b"b"))
    return Built(target, (1, (6,), dtype, False, ONES))


def nested(depth: int, width: int) -> bytes:
    """Lists that hold the one before `width` times each."""
    code = b"]q\x00"
    for _ in range(depth):
        code += b"0](" + b"h\x00" * width + b"eq\x00"
    return code


ABSURD = (1_000_000, 1_000_000)
PICKLES = {
    "absurd-shape": (w(numpy_array(ABSURD, ONES)), "needs 4000000000000 bytes"),
    "absurd-shape-overflowing": (w(numpy_array((2**40, 2**40), ONES)), "absurd shape"),
    "absurd-shape-of-nothing": (w(numpy_array((0, 2**62, 2**62), b"")), "absurd shape"),
    "absurd-shape-from-text": (
        w(numpy_array(ABSURD, Call(Name("_codecs", "encode"), ("x" * 600, "latin1")))),
        "needs 4000000000000 bytes",
    ),
    "negative-shape": (w(numpy_array((-2, -3), ONES)), "impossible shape"),
    "bool-shape": (w(numpy_array((True, 6), ONES)), "not made of integers"),
    "float-shape": (w(numpy_array((6.0,), ONES)), "not made of integers"),
    "shape-is-text": (w(numpy_array("6", ONES)), "no usable shape"),
    "shape-laughs": (w(numpy_array((Raw(nested(40, 2)),), ONES)), "not made of integers"),
    "rank-33": (w(numpy_array((1,) * 33, ONES[:4])), "no usable shape"),
    "too-little-data": (w(numpy_array((7,), ONES)), "needs 28 bytes"),
    "too-much-data": (w(numpy_array((5,), ONES)), "needs 20 bytes"),
    "data-is-a-list": (w(numpy_array((6,), [1.0] * 6)), "array of objects"),
    "data-is-an-array": (w(numpy_array((6,), GOOD)), "array of objects"),
    "text-that-is-not-latin1": (
        w(numpy_array((1000,), Call(Name("_codecs", "encode"), ("\u20ac" * 1000, "latin1")), "u1")),
        "needs 1000 bytes",
    ),
    "short-text-that-is-not-latin1": (
        w(numpy_array((4,), Call(Name("_codecs", "encode"), ("\u20ac\u20ac", "latin1")), "u1")),
        "UnicodeEncodeError",
    ),
    "text-with-fewer-characters": (
        w(numpy_array((1000,), Call(Name("_codecs", "encode"), ("\xe9" * 600, "latin1")), "u1")),
        "ends early",
    ),
    "text-with-more-characters": (
        w(numpy_array((700,), Call(Name("_codecs", "encode"), ("x" * 701, "latin1")), "u1")),
        "belong to nothing",
    ),
    "object-array": (w(array_of(kind("O8"))), "array of type 'O8'"),
    "void-array": (w(array_of(kind("V4"))), "array of type 'V4'"),
    "text-array": (w(array_of(kind("U1"))), "array of type 'U1'"),
    "date-array": (w(array_of(kind("M8"))), "array of type 'M8'"),
    "complex-array": (w(array_of(kind("c8"))), "array of type 'c8'"),
    "struct-array": (
        w(array_of(kind("f4", (3, "|", None, ("a",), {"a": (1, 0)}, 4, 1, 16)))),
        "not plain numbers",
    ),
    "sub-array": (w(array_of(kind("f4", (3, "|", (1, (6,)), None, None, -1, -1, 0)))), "not plain numbers"),
    "byte-order-of-nobody": (
        w(array_of(kind("f4", (3, "?", None, None, None, -1, -1, 0)))),
        "not plain numbers",
    ),
    "dtype-is-a-list": (w(array_of(kind([1, 2]))), "of an unknown kind"),
    "dtype-is-missing": (w(array_of(None)), "array without a type"),
    "array-without-state": (w(numpy_array((6,), ONES).target), "no contents"),
    "array-built-twice": (w(Built(GOOD, GOOD.state)), "unknown layout"),
    "array-of-a-matrix": (
        w(Call(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "matrix"), (0,), b"b"))),
        "numpy.matrix",
    ),
    "one-run-in-many-types": (
        b"\x80\x02}("
        + code_of("bytes")
        + code_of(bytes(8_000_000))
        + b"q\x00"
        + b"".join(
            code_of(f"w{i}") + code_of(numpy_array((8_000_000 // int(c[1]),), Raw(b"h\x00"), c))
            for i, c in enumerate(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u1"] * 3)
        )
        + b"u.",
        "unfolds to",
    ),
    "bytes-beyond-the-file": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "does not have"),
    "text-beyond-the-file": (b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.", "does not have"),
    "bytearray-beyond-the-file": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "does not have"),
    "frame-beyond-the-file": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.", "does not have"),
    "long-integer": (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "integer of 255 bytes"),
    "longer-integer": (b"\x80\x02\x8b" + struct.pack("<i", 2_000_000) + b"\x7f" * 2_000_000 + b".", "LONG4"),
    "integer-in-text": (b"\x80\x02L" + b"9" * 100_000 + b"L\n.", "line that does not end"),
    "endless-name": (b"\x80\x02c" + b"a" * 100_000 + b"\nb\n.", "line that does not end"),
    "laughs": (b"\x80\x02" + nested(60, 4) + b".", "no state dict"),
    "laughs-as-a-name": (
        b"\x80\x02}]q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"Ns.",
        "not plain text or a number",
    ),
    "deep-lists": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "no state dict"),
    "deep-tuples": (b"\x80\x02)" + b"\x85" * 300_000 + b".", "no state dict"),
    "deep-tuple-as-a-name": (b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.", "not plain text or a number"),
    "deep-marks": (b"\x80\x02" + b"(" * 400_000 + b"t" * 400_000 + b".", "no state dict"),
    "its-own-element": (b"\x80\x02]q\x00h\x00a.", "no state dict"),
    "its-own-model": (b"\x80\x02}q\x00(" + code_of("model") + b"h\x00u.", "no tensors"),
    "too-many-instructions": (b"\x80\x02" + b"N0" * 600_000 + b"N.", "more than 1000000 instructions"),
    "too-much-text": (b"\x80\x02" + (code_of("x" * 500) + b"0") * 35_000 + b"N.", "too much text"),
    "name-twice": (b"\x80\x02}(" + (code_of("w") + code_of(GOOD)) * 2 + b"u.", "'w' twice"),
    "overlong-name": (pickled({"w" * 513: GOOD}), "longer than 512 bytes"),
    "unprintable-name": (pickled({"w\n\x1b[2J": GOOD}), "unprintable name"),
    "empty-name": (pickled({"": GOOD}), "no proper name"),
    "number-as-a-name": (pickled({3: GOOD}), "no proper name"),
    "name-is-only-a-prefix": (pickled({"module.": GOOD}), "no proper name"),
    "recall-of-nothing": (b"\x80\x02h\x07.", "never stored"),
    "empty-stack": (b"\x80\x020.", "more than it put down"),
    "no-mark": (b"\x80\x02NNt.", "more than it put down"),
    "leftovers": (b"\x80\x02NN.", "leaves things behind"),
    "odd-items": (b"\x80\x02}(Nu.", "name without a value"),
    "append-to-a-dict": (b"\x80\x02}Na.", "not a plain list"),
    "unknown-instruction": (b"\x80\x02\xff.", "0xff"),
    "protocol-9": (b"\x80\x09N.", "unknown protocol"),
    "trailing-bytes": (w(GOOD) + b"x", "1 bytes follow"),
    "two-pickles": (w(GOOD) * 2, "follow the end"),
    "not-a-dict": (pickled([GOOD]), "no state dict"),
    "no-tensors": (pickled({"epoch": 3, "args": "x"}), "only epoch, args"),
    "empty-dict": (pickled({}), "only nothing"),
    "part-table-is-text": (pickled({"w": GOOD, "UnpackBigParamInfor@@": "x"}), "table of split arrays"),
    "part-that-is-not-there": (
        pickled({"w": GOOD, "UnpackBigParamInfor@@": {"v": {"OriginShape": (6,), "slices": ["v@@.0"]}}}),
        "missing or damaged",
    ),
    "part-used-twice": (
        pickled({"p": GOOD, "UnpackBigParamInfor@@": {"v": {"OriginShape": (12,), "slices": ["p", "p"]}}}),
        "missing or damaged",
    ),
    "parts-of-an-absurd-shape": (
        pickled({"p": GOOD, "UnpackBigParamInfor@@": {"v": {"OriginShape": ABSURD, "slices": ["p"]}}}),
        "do not fill its shape",
    ),
    "parts-of-two-types": (
        pickled(
            {
                "p": GOOD,
                "q": numpy_array((3,), ONES, "i8"),
                "UnpackBigParamInfor@@": {"v": {"OriginShape": (9,), "slices": ["p", "q"]}},
            }
        ),
        "differ in type",
    ),
}

LEGACY = {"w": tensor(storage("0", "f4", 6, None), (6,), (1,))}
TORCH = {
    "stride-0": (view((1_000_000, 6), (0, 1)), "repeats 6 stored elements"),
    "overlapping-strides": (view((3, 3), (1, 1)), "repeats 5 stored elements"),
    "stride-too-large": (view((2, 3), (4, 1)), "reaches outside its storage"),
    "offset-too-large": (view((6,), (1,), 1), "reaches outside its storage"),
    "negative-offset": (view((1,), (1,), -1), "impossible offset"),
    "negative-stride": (view((6,), (-1,), 5), "impossible offset"),
    "offset-is-text": (view((6,), (1,), "0"), "impossible offset"),
    "strides-missing": (view((2, 3), (1,)), "do not match"),
    "absurd-view": (view(ABSURD, (1_000_000, 1)), "reaches outside its storage"),
    "absurd-storage": (
        torch_zip({"w": tensor(storage("0", "f4", 10**12), ABSURD, (10**6, 1))}, {"0": ONES}),
        "not the 4000000000000 bytes",
    ),
    "negative-storage": (
        torch_zip({"w": tensor(storage("0", "f4", -1), (), ())}, {"0": ONES}),
        "cannot exist",
    ),
    "storage-missing": (torch_zip({"w": tensor(storage("1", "f4", 6), (6,), (1,))}, {"0": ONES}), "missing"),
    "storage-in-another-folder": (
        torch_zip({"w": tensor(storage("../version", "u1", 2), (2,), (1,))}, {}),
        "cannot exist",
    ),
    "storage-in-two-types": (
        torch_zip({k: tensor(storage("0", k, 6), (6,), (1,)) for k in ("f4", "i4")}, {"0": ONES}),
        "in two ways",
    ),
    "not-a-storage": (
        torch_zip(Persistent(("storage", Name("collections", "OrderedDict"), "0", "cpu", 6)), {}),
        "not a storage",
    ),
    "tensor-of-nothing": (torch_zip({"w": tensor(None, (6,), (1,))}, {}), "not a storage"),
    "parameter-of-nothing": (
        torch_zip({"w": Call(Name("torch._utils", "_rebuild_parameter"), (1, True, None))}, {}),
        "not a tensor",
    ),
    "byte-order-of-nobody": (torch_zip(LEGACY, {"0": ONES}, b"middle"), "unknown byte order"),
    "two-pickles": (zipped({"a/data.pkl": pickled({}), "b/data.pkl": pickled({})}), "2 pickles"),
    "torchscript": (zipped({"a/data.pkl": pickled({}), "a/constants.pkl": b""}), "TorchScript"),
    "pickle-with-a-tail": (torch_zip(pickled({}) + b"x", {}), "follow the end"),
    "deflated": (
        zipped({"a/data.pkl": pickled(LEGACY), "a/data/0": ONES}, zipfile.ZIP_DEFLATED),
        "unexpected way",
    ),
    "checksum": (torch_zip(LEGACY, {"0": ONES}).replace(ONES, ONES[:-1] + b"@"), "Bad CRC-32"),
    "legacy-wrong-protocol": (MAGIC + pickled(1002) + SYSTEM + pickled({}) + pickled([]), "not the legacy"),
    "legacy-absurd-storage": (
        torch_legacy(
            {"w": tensor(storage("0", "f4", 10**12, None), ABSURD, (10**6, 1))}, {"0": (10**12, ONES)}
        ),
        "more than the whole file",
    ),
    "legacy-count-lies": (torch_legacy(LEGACY, {"0": (7, ONES)}), "does not hold the 6 elements"),
    "legacy-data-short": (torch_legacy(LEGACY, {"0": (6, ONES[:-4])}), "does not end where the file ends"),
    "legacy-data-long": (torch_legacy(LEGACY, {"0": (6, ONES + ONES)}), "does not end where the file ends"),
    "legacy-key-missing": (torch_legacy(LEGACY, {}), "not the one that the tensors use"),
    "legacy-key-twice": (
        MAGIC + PROTOCOL + SYSTEM + pickled(LEGACY) + pickled(["0", "0"]) + struct.pack("<q", 6) + ONES,
        "list of storages is damaged",
    ),
    "legacy-view-outside": (
        torch_legacy({"w": tensor(storage("0", "f4", 6, ("1", 4, 3)), (3,), (1,))}, {"0": (6, ONES)}),
        "reaches outside its storage",
    ),
    "legacy-truncated": (torch_legacy(LEGACY, {"0": (6, ONES)})[:200], "does not end"),
}


def entry(dtype="F32", shape=(6,), place=(0, 24)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


TWICE = b'{"w":' + json.dumps(entry()).encode() + b',"w":' + json.dumps(entry()).encode() + b"}"
SAFETENSORS = {
    "header-beyond-the-file": (struct.pack("<Q", 2**62) + b'{"w":1}', "shorter than its header"),
    "large-header": (struct.pack("<Q", 3 << 20) + b"{" + b" " * (3 << 20), "header of 3 MiB"),
    "deep-header": (safetensors(b'{"w":' + b"[" * 500_000, b""), "RecursionError"),
    "broken-header": (safetensors(b'{"w":', b""), "JSONDecodeError"),
    "long-integer": (safetensors(b'{"w":' + b"9" * 1_000_000 + b"}", b""), "1000000 digits"),
    "name-twice": (safetensors(TWICE, ONES), "a name twice"),
    "absurd-shape": (safetensors({"w": entry(shape=ABSURD)}, ONES), "does not fit"),
    "negative-shape": (safetensors({"w": entry(shape=(-6, -1))}, ONES), "impossible shape"),
    "outside": (safetensors({"w": entry(place=(4, 28))}, ONES), "does not fit"),
    "backwards": (safetensors({"w": entry(place=(24, 0))}, ONES), "does not fit"),
    "overlap": (safetensors({"w": entry(), "v": entry()}, ONES), "overlap or leave holes"),
    "hole": (safetensors({"w": entry(place=(4, 28))}, ONES + b"1234"), "overlap or leave holes"),
    "tail": (safetensors({"w": entry()}, ONES + b"1234"), "do not end where the file ends"),
    "element-type": (safetensors({"w": entry("F8_E4M3", (24,))}, ONES), "not supported"),
    "entry-is-text": (safetensors({"w": "x"}, ONES), "is damaged"),
    "overlong-name": (safetensors({"w" * 513: entry()}, ONES), "overlong"),
    "no-arrays": (safetensors({"__metadata__": {}}, b""), "no tensors"),
}


def header(text: str, data: bytes = ONES) -> bytes:
    return zipped({"w.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data})


def plain(descr="<f4", shape="(6,)") -> bytes:
    return header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")


def linked() -> bytes:
    info = zipfile.ZipInfo("w.npy")
    info.external_attr = 0o120777 << 16
    return zip_of((info, b"/etc/passwd"))


def zip_of(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate that this is about
        for info, data in members:
            archive.writestr(info, data)
    return stream.getvalue()


def patched(data: bytes, signature: bytes, offset: int, layout: str, value: int) -> bytes:
    """`data` with a number replaced, `offset` bytes behind the first `signature`."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, data.index(signature) + offset, value)
    return bytes(changed)


ARRAY = npy(np.ones(6, "f4"))
ONE = zipped({"w.npy": ARRAY})
CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"
NPZ = {
    "absurd-shape": (plain(shape="(1000000, 1000000)"), "does not fit"),
    "negative-shape": (plain(shape="(-6,)"), "not a plain array"),
    "too-much-data": (plain(shape="(5,)"), "does not fit"),
    "object": (plain("|O"), "type |O"),
    "text": (plain("<U6"), "type <U6"),
    "complex": (plain("<c8"), "type <c8"),
    "struct": (
        header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }"),
        "not a plain array",
    ),
    "long-header": (header(" " * 20_000), "header of 20000 bytes"),
    "not-numpy": (zipped({"w.npy": b"hello, world"}), "not a numpy array"),
    "member-twice": (zip_of(("w.npy", ARRAY), ("w.npy", ARRAY)), "holds w.npy twice"),
    "link": (linked(), "link or a folder"),
    "parent-folder": (zipped({"../w.npy": ARRAY}), "path ../w.npy"),
    "absolute-path": (zipped({"/w.npy": ARRAY}), "path /w.npy"),
    "backslash": (zipped({"..\\w.npy": ARRAY}), "path ..\\w.npy"),
    "drive": (zipped({"c:/w.npy": ARRAY}), "path c:/w.npy"),
    "lzma": (zipped({"w.npy": ARRAY}, zipfile.ZIP_LZMA), "unexpected way"),
    "encrypted": (patched(ONE, CENTRAL, 8, "<H", 1), "encrypted"),
    "stored-size-lies": (patched(ONE, CENTRAL, 24, "<I", 10**9), "lies about the size"),
    "overlap": (
        patched(zipped({"v.npy": ARRAY, "w.npy": ARRAY}), b"w.npyPK", -4, "<I", 0),
        "overlap or reach outside",
    ),
    "directory-outside": (patched(ONE, END, 16, "<I", 10**9), "reach outside"),
    "bomb": (zipped({"w.npy": npy(np.zeros(40_000_000))}, zipfile.ZIP_DEFLATED), "unfolds to"),
    "empty-zip": (zipped({}), "no tensors"),
    "other-zip": (zipped({"readme.txt": b"hello"}), "zip file without weights"),
    "truncated": (ONE[:-30], "BadZipFile"),
}

OTHERS = {
    "empty": (b"", "it is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    "html": (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
    "xml": (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "web page"),
    "json": (b'{"weight_map": {}}', "JSON"),
    "npy": (ARRAY, "one array without a name"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "zeros": (bytes(10_000), "nothing but zeros"),
    "tar": (b"x" * 257 + b"ustar" + bytes(100), "tar file"),
    "text": (b"hello, world, this is not a pickle", None),
    "one-byte": (b"\x80", "ends early"),
}

FILES = [
    pytest.param(extension, data, words, id=f"{extension[1:]}-{name}")
    for extension, cases in [
        (".pdparams", PICKLES),
        (".pth", TORCH),
        (".safetensors", SAFETENSORS),
        (".npz", NPZ),
        (".bin", OTHERS),
    ]
    for name, (data, words) in cases.items()
]


@pytest.mark.parametrize("extension, data, words", FILES)
def test_refused_with_one_clear_line(tmp_path, extension, data, words):
    path = tmp_path / f"model{extension}"
    path.write_bytes(data)
    with watched() as seen, pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and ";" in message and message.isprintable(), message
    assert words is None or words in message
    assert not seen
    assert not isinstance(caught.value.__cause__, TypeError | KeyError | AttributeError | IndexError | None)


def test_unknown_content_with_an_unknown_extension(tmp_path):
    path = tmp_path / "model.weights"
    path.write_bytes(b"hello, world")
    with pytest.raises(CheckpointError, match="none of .pdparams, .pth, .safetensors and .npz"):
        read_checkpoint(path)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_things_that_are_not_files(tmp_path, make):
    make(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="folder, pipe or device"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin"])
def test_devices(path):
    with pytest.raises(CheckpointError, match="folder, pipe or device"):
        read_checkpoint(path if os.path.exists(path) else os.devnull)


@pytest.mark.parametrize("path", ["missing.pth", "a\0b.pth", "x" * 5000])
def test_paths_that_lead_nowhere(tmp_path, path):
    with pytest.raises(CheckpointError):
        read_checkpoint(f"{tmp_path}/{path}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({}))
    path.chmod(0)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        read_checkpoint(path)


@pytest.mark.parametrize("extension, data", [(".pdparams", pickled({"w": GOOD})), (".npz", ONE)])
def test_every_truncation_is_noticed(tmp_path, extension, data):
    path = tmp_path / f"model{extension}"
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_checkpoint(path).tensors["w"], np.ones(6, "f4"))
