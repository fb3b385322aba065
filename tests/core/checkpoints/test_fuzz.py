"""Mutated files: each is either read or refused with CheckpointError, and never does anything else.

`-m slow` runs the long form. A failure prints the seed; `FUZZ_SEED=<seed>` repeats that one mutation.
"""

import os
import pickle
import random
import time
import zipfile

import numpy as np
import pytest

from tome_core.checkpoints import Checkpoint, read_checkpoint
from tome_core.errors import CheckpointError

from .watch import watched
from .writers import (
    ORDERED,
    Built,
    Call,
    Name,
    code_of,
    npy,
    parameter,
    pickled,
    safetensors,
    storage,
    tensor,
    torch_legacy,
    torch_zip,
    upper_half,
    zipped,
)

WEIGHT = np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4)
LONG = np.linspace(-1, 1, 300, dtype="f4")
# Errors that would point at a mistake in the readers rather than in the file.
MISTAKES = (TypeError, KeyError, AttributeError, IndexError, NameError, AssertionError, MemoryError)
SECONDS_PER_FILE = 2.0
BOUNDARIES = [
    0,
    1,
    127,
    128,
    255,
    256,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**40,
    2**62,
    2**64 - 1,
]


def state(*legacy) -> Built:
    tensors = {
        "w": parameter(tensor(storage("0", "f4", 12, *legacy), (3, 4), (4, 1))),
        "t": tensor(storage("0", "f4", 12, *legacy), (4, 3), (1, 4)),
        "b": tensor(storage("1", "bf16", 12, *legacy), (12,), (1,)),
    }
    namespace = Built(Call(Name("argparse", "Namespace"), ()), {"lr": 0.1})
    return Built(ORDERED, {"_metadata": {"version": 1}}), {"model": tensors, "args": namespace, "epoch": 3}


def torch_pickle(data: bytes) -> bytes:
    return torch_zip(data, {"0": WEIGHT.tobytes(), "1": upper_half(WEIGHT)})


def npz_member(data: bytes) -> bytes:
    return zipped({"a/w.npy": data, "b.npy": npy(WEIGHT > 0)}, zipfile.ZIP_DEFLATED)


def whole(data: bytes) -> bytes:
    return data


NUMPY = {"module.w": WEIGHT, "module.l": LONG, "module.f": np.asfortranarray(WEIGHT.astype(">f8"))}
HEADER = {
    "w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
    "b": {"dtype": "BF16", "shape": [12], "data_offsets": [48, 72]},
}
PARTS = {"p@@.0": LONG[:200], "p@@.1": LONG[200:]}
PARTS |= {"UnpackBigParamInfor@@": {"p": {"OriginShape": (3, 100), "slices": ["p@@.0", "p@@.1"]}}}
# (extension, what is mutated, how the result is packed into a file)
SEEDS = [
    *((".pdparams", pickle.dumps(NUMPY, protocol), whole) for protocol in (2, 3, 4, 5)),
    (".pdparams", pickle.dumps({"model": {k: (k, v) for k, v in NUMPY.items()}, "epoch": 3}, 4), whole),
    (".pdparams", pickle.dumps(PARTS, 2), whole),
    (".pth", torch_pickle(pickled(state()[1])), whole),
    (".pth", pickled(state()[1]), torch_pickle),
    (".pth", pickled(state()[0]), torch_pickle),
    (
        ".pth",
        torch_legacy(state(None)[1], {"0": (12, WEIGHT.tobytes()), "1": (12, upper_half(WEIGHT))}),
        whole,
    ),
    (".safetensors", safetensors(HEADER, WEIGHT.tobytes() + upper_half(WEIGHT)), whole),
    (".npz", npz_member(npy(WEIGHT)), whole),
    (".npz", npy(WEIGHT), npz_member),
]
# Worth splicing in: instructions and globals that must never do anything.
DANGEROUS = [
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    code_of(Call(Name("os", "system"), ("exit 7",))),
    b"(S'exit 7'\nios\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93",
    b"\x82\x01",
    b"2" * 50,
    b"R",
    b"b",
    b"\x81",
    b"Q",
    b"h\x00" * 20,
    b"\x8e" + b"\xff" * 8,
    b"(" * 300,
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four random changes: flipped bits, lies about numbers, cuts, copies and splices."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(8):
            case 0 | 1 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 2 if changed:
                changed[at % len(changed)] = rng.randrange(256)
            case 3:
                width = rng.choice([1, 2, 4, 8])
                value = rng.choice(BOUNDARIES) & ((1 << 8 * width) - 1)
                changed[at : at + width] = value.to_bytes(width, rng.choice(["little", "big"]))
            case 4:
                del changed[at : at + rng.choice([1, 2, 8, 100])]
            case 5:
                start = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + rng.choice([1, 4, 16, 64])]
            case 6:
                changed[at:at] = rng.choice(DANGEROUS)
            case 7 if rng.random() < 0.3:
                del changed[at:]
            case _:
                other = rng.choice(SEEDS)[1]
                start = rng.randrange(len(other))
                changed[at : at + rng.choice([0, 8])] = other[start : start + rng.choice([2, 8, 32])]
    return bytes(changed)


def try_one(seed: int, folder) -> bool:
    """Whether the file of `seed` could be read. Fails the test if reading did anything wrong."""
    rng = random.Random(seed)
    extension, data, pack = rng.choice(SEEDS)
    path = folder / f"model{extension}"
    path.write_bytes(pack(mutate(data, rng)))
    size = path.stat().st_size
    started = time.perf_counter()
    try:
        with watched() as seen:
            found = read_checkpoint(path)
    except CheckpointError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and message.isprintable(), message
        assert not isinstance(error.__cause__, MISTAKES), repr(error.__cause__)
        found = None
    assert not seen
    assert time.perf_counter() - started < SECONDS_PER_FILE
    if found is None:
        return False
    assert isinstance(found, Checkpoint) and found.tensors
    for name, array in found.tensors.items():
        assert name and type(array) is np.ndarray and array.dtype.kind in "fiub" and array.dtype.isnative
        assert array.nbytes <= 2 * size + (64 << 20)
        np.array(array)  # touches every element: a view outside its memory would show
    return True


def fuzz(folder, seeds) -> None:
    read = 0
    for seed in seeds:
        try:
            read += try_one(seed, folder)
        except BaseException as error:
            error.add_note(f"repeat with FUZZ_SEED={seed}") if hasattr(error, "add_note") else None
            print(f"failed with FUZZ_SEED={seed}")
            raise
    print(f"{len(seeds)} mutations: {read} read, {len(seeds) - read} refused")
    # Both outcomes must be common, or the mutations are too mild or too wild to find anything.
    assert len(seeds) < 100 or len(seeds) // 50 < read < len(seeds) // 2


def seeds(count: int) -> list[int]:
    chosen = os.environ.get("FUZZ_SEED")
    return [int(chosen)] if chosen else list(range(count))


def test_the_seeds_are_good_files(tmp_path):
    for i, (extension, data, pack) in enumerate(SEEDS):
        path = tmp_path / f"{i}{extension}"
        path.write_bytes(pack(data))
        if data == pickled(state()[0]):
            continue  # an OrderedDict without tensors, there for its BUILD
        assert read_checkpoint(path).tensors


def test_mutations(tmp_path):
    fuzz(tmp_path, seeds(600))


@pytest.mark.slow
def test_many_mutations(tmp_path):
    fuzz(tmp_path, seeds(20_000))
