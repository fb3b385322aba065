"""Peak memory of a fresh process that reads a file: at most twice the file plus 200 MB, bomb or not."""

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from .writers import (
    code_of,
    npy,
    numpy_array,
    pickled,
    safetensors,
    storage,
    tensor,
    torch_zip,
    upper_half,
    zipped,
)

MB = 1_000_000
# The readers alone: tome_core itself imports paddle, whose own peak would hide what reading adds.
PROGRAM = """
import sys, types
sys.modules["tome_core"] = types.ModuleType("tome_core")
sys.modules["tome_core"].__path__ = ["tome_core"]
from tome_core.checkpoints import read_checkpoint
from tome_core.errors import CheckpointError

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

before = peak()
try:
    outcome = f"read {len(read_checkpoint(sys.argv[1]).tensors)}"
except CheckpointError as error:
    outcome = "refused"
print(peak() - before, outcome)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")


def random(n: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(n, "f4")


def bfloat16_transposed() -> bytes:
    part = storage("0", "bf16", 20_000_000)
    return torch_zip({"w": tensor(part, (4000, 5000), (1, 4000))}, {"0": upper_half(random(20_000_000))})


def directory_bomb() -> bytes:
    return zipped({f"{i}.npy": b"" for i in range(60_000)})


def many_types() -> bytes:
    """Many arrays of several types that all claim the same 8 MB."""
    code = b"\x80\x02}(" + code_of("b") + code_of(bytes(8 * MB)) + b"q\x00"
    for i in range(60):
        array = code_of(numpy_array((8 * MB // 2,), b"", "u2")).replace(code_of(b""), b"h\x00")
        code += code_of(f"w{i}") + array
    return code + b"u."


HONEST = {
    "protocol-2": (lambda: pickle.dumps({"w": random(12_000_000)}, 2), ".pdparams"),
    "protocol-2-zeros": (lambda: pickle.dumps({"w": np.zeros(20_000_000, "f4")}, 2), ".pdparams"),
    "protocol-4": (lambda: pickle.dumps({"w": random(12_000_000), "v": random(12_000_000)}, 4), ".pdparams"),
    "bfloat16": (
        lambda: safetensors(
            {"w": {"dtype": "BF16", "shape": [40_000_000], "data_offsets": [0, 80_000_000]}},
            upper_half(random(40_000_000)),
        ),
        ".safetensors",
    ),
    "bfloat16-transposed": (bfloat16_transposed, ".pth"),
    "npz": (lambda: zipped({"w.npy": npy(random(8_000_000))}, zipfile.ZIP_DEFLATED), ".npz"),
}
BOMBS = {
    "dicts": (lambda: b"\x80\x02" + b"}" * 999_000 + b".", ".pdparams"),
    "dicts-in-a-list": (lambda: b"\x80\x02](" + b"}" * 999_000 + b"e.", ".pdparams"),
    "sets": (lambda: b"\x80\x04" + b"\x8f" * 999_000 + b".", ".pdparams"),
    "memo": (lambda: b"\x80\x04}" + b"\x94" * 999_000 + b".", ".pdparams"),
    "memo-of-dicts": (lambda: b"\x80\x04" + b"}\x94" * 499_000 + b".", ".pdparams"),
    "dicts-of-dicts": (lambda: b"\x80\x02" + b"}K\x01" * 333_000 + b"s" * 332_999 + b".", ".pdparams"),
    "integers": (lambda: b"\x80\x02" + b"J\xff\xff\xff\x7f" * 999_000 + b".", ".pdparams"),
    "strings": (lambda: b"\x80\x04" + b"\x8c\x00" * 10 + b"\x8c\x02ab" * 900_000 + b".", ".pdparams"),
    "wide-strings": (lambda: pickled(["\U0001f600" + "x" * 500] * 33_000), ".pdparams"),
    "arrays": (
        lambda: b"\x80\x02" + code_of([numpy_array((1,), b"1234")] * 30_000) + b".",
        ".pdparams",
    ),
    "empty-arrays": (lambda: pickled({f"w{i}": numpy_array((0,), b"") for i in range(15_000)}), ".pdparams"),
    "one-run-many-arrays": (many_types, ".pdparams"),
    "npz": (lambda: zipped({"w.npy": npy(np.zeros(60_000_000))}, zipfile.ZIP_DEFLATED), ".npz"),
    "npz-many": (
        lambda: zipped({f"{i}.npy": npy(np.zeros(5_000_000)) for i in range(8)}, zipfile.ZIP_DEFLATED),
        ".npz",
    ),
    "directory": (directory_bomb, ".npz"),
    "json-lists": (lambda: safetensors(b'{"w":[' + b"[]," * 690_000 + b"[]]}", b""), ".safetensors"),
    "json-dicts": (lambda: safetensors(b'{"w":[' + b"{}," * 690_000 + b"{}]}", b""), ".safetensors"),
    "json-numbers": (lambda: safetensors(b'{"w":[' + b"1e9," * 500_000 + b"1]}", b""), ".safetensors"),
}


def peak(path: Path) -> tuple[int, str]:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    extra, outcome = done.stdout.split(maxsplit=1)
    return int(extra), outcome.strip()


def measure(tmp_path: Path, make, extension: str) -> tuple[int, str, int]:
    path = tmp_path / f"model{extension}"
    path.write_bytes(make())
    size = path.stat().st_size
    extra, outcome = peak(path)
    path.unlink()
    print(f"{size / MB:.0f} MB file, {extra / MB:.0f} MB extra, {outcome}")
    return extra, outcome, size


@pytest.mark.parametrize("case", HONEST)
def test_honest_files(tmp_path, case):
    extra, outcome, size = measure(tmp_path, *HONEST[case])
    assert outcome.startswith("read")
    # The arrays alone are one to two times the file, so a reader that held anything twice would show.
    assert extra <= 2 * size + 20 * MB


@pytest.mark.parametrize("case", BOMBS)
def test_bombs(tmp_path, case):
    extra, outcome, size = measure(tmp_path, *BOMBS[case])
    assert extra <= 2 * size + 200 * MB
    assert outcome == ("read 15000" if case == "empty-arrays" else "refused")
