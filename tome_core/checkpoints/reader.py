"""`read_checkpoint`: recognise a weights file, read it, and turn every failure into one clear line."""

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tome_core.checkpoints.arrays import materialise
from tome_core.checkpoints.limits import AGAIN, CHUNK, MAX_FILE, Refused, array_budget, damaged, shown, unsafe
from tome_core.checkpoints.numpy_files import read_npz
from tome_core.checkpoints.paddle_files import read_pdparams
from tome_core.checkpoints.safetensors_files import read_safetensors
from tome_core.checkpoints.torch_files import MAGIC, read_torch_legacy, read_torch_zip
from tome_core.checkpoints.unwrap import state_dict
from tome_core.checkpoints.zips import Zip
from tome_core.errors import CheckpointError

_READERS: dict[str, Callable[[BinaryIO, int], object]] = {
    "pdparams": read_pdparams,
    "torch-zip": read_torch_zip,
    "torch-legacy": read_torch_legacy,
    "safetensors": read_safetensors,
    "npz": read_npz,
}
_EXTENSIONS = {
    ".pdparams": "pdparams",
    ".pd": "pdparams",
    ".pkl": "pdparams",
    ".pth": "pdparams",  # neither of torch's layouts, so at best a plain pickle
    ".pt": "pdparams",
    ".bin": "pdparams",
    ".safetensors": "safetensors",
    ".npz": "npz",
}
_NOT_WEIGHTS = [
    (b"version https://git-lfs", "this is a Git LFS pointer, not the weights; run `git lfs pull`"),
    (b"<", "this is a web page, not the weights; download the file itself"),
    (b"{", "this is a JSON text, not the weights; give the weights file that it names"),
    (b"\x93NUMPY", "this is one array without a name; save it with np.savez"),
    (b"\x89HDF", "this is an HDF5 file; convert it to .safetensors or .npz"),
    (b"\x1f\x8b", "this is a gzip file; unpack it first"),
    (b"\xfd7zXZ", "this is an xz file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "this is a zstd file; unpack it first"),
]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Named arrays of a weights file.

    `format` is "pdparams", "torch-zip", "torch-legacy", "safetensors" or "npz"; `sha256` is the file's, hex.
    `tensors` keeps the file's order, shapes and dtypes, in native byte order; bfloat16 is widened (exactly)
    to float32. Tensors that share storage in the file share memory; some may be non-contiguous views.
    """

    path: Path
    format: str
    sha256: str
    tensors: dict[str, np.ndarray]


def _recognise(file: BinaryIO, size: int, extension: str) -> str:
    """The format by content, else by extension. Raises Refused for files that are known not to be weights."""
    head = file.read(512)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _recognise_zip(file, size)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    if head[:1] == b"\x80":
        return "torch-legacy" if head[2 : 2 + len(MAGIC)] == MAGIC else "pdparams"
    for start, message in _NOT_WEIGHTS:
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start):
            raise Refused(message)
    if head[257:262] == b"ustar":
        raise Refused("this is a tar file; unpack it, or re-save it with a newer torch")
    if not head.strip(b"\0"):
        raise damaged("it begins with nothing but zeros, an interrupted download perhaps")
    if extension in _EXTENSIONS:
        return _EXTENSIONS[extension]
    raise Refused("it is none of .pdparams, .pth, .safetensors and .npz; give a weights file")


def _recognise_zip(file: BinaryIO, size: int) -> str:
    names = Zip(file, size, compressed=True).sizes
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "torch-zip"
    if all(name.endswith(".npy") for name in names):
        return "npz"
    raise Refused("it is a zip file without weights; unpack it and give the weights file itself")


def _open(path: Path) -> BinaryIO:
    """Open a regular file; never waits on a pipe, never touches a device."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Refused("it is a folder, pipe or device, not a file; give the weights file itself")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = open(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise Refused("it was replaced while it was opened; try again")
    return file


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(CHUNK):
        digest.update(block)
    return digest.hexdigest()


def _check_finite(arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not array.size:
            continue
        with np.errstate(invalid="ignore"):  # min and max propagate NaN and, unlike isfinite, need no memory
            extremes = np.array([array.min(), array.max()])
        if not np.isfinite(extremes).all():
            raise Refused(f"{shown(name)} holds NaN or infinity; use others, or pass allow_nonfinite=True")


def _read(path: Path, allow_nonfinite: bool) -> Checkpoint:
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise damaged("it is empty")
        if size > MAX_FILE:
            raise unsafe(f"it is larger than {MAX_FILE >> 30} GiB")
        kind = _recognise(file, size, path.suffix.lower())
        arrays = materialise(state_dict(_READERS[kind](file, size)), array_budget(size))
        if not allow_nonfinite:
            _check_finite(arrays)
        return Checkpoint(path, kind, _digest(file), arrays)


def read_checkpoint(path: str | os.PathLike, *, allow_nonfinite: bool = False) -> Checkpoint:
    """Read a weights file without running anything in it.

    Reads what `paddle.save` writes (`.pdparams`, MAE's `.pd`), both layouts of `torch.save`, `.safetensors`
    and `.npz`, recognised by content first and extension second. Wrappers such as `{"model": ...}` and
    `module.` prefixes are taken off; training state beside the weights is left out. Needs numpy only.
    Needs at most twice the file's size plus 200 MB of memory.

    Args:
        path: the file.
        allow_nonfinite: accept NaN and infinity.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe or no weights file. One line, with what to do.
    """
    where = shown(path, 300)
    try:
        return _read(Path(path), allow_nonfinite)
    except Refused as error:
        raise CheckpointError(f"{where}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{where}: there is no such file; check the path") from error
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be opened or read ({shown(error)}); check it") from error
    except MemoryError as error:
        raise CheckpointError(f"{where}: too little memory to read it; free some and try again") from error
    except Exception as error:
        what = f"{type(error).__name__}: {shown(error)}"
        raise CheckpointError(f"{where}: it is damaged ({what}); {AGAIN}") from error
