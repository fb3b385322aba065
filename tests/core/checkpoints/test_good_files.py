"""Every format a user may bring, written the way its own library writes it."""

import argparse
import ast
import collections
import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tome_core.checkpoints import read_checkpoint
from tome_core.errors import CheckpointError

from .writers import (
    ORDERED,
    Built,
    Call,
    Name,
    npy,
    numpy_array,
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

WEIGHT = np.arange(12, dtype="f4").reshape(3, 4) / 7 - 0.5
BIAS = np.array([1.0, -2.5, 3.25], "f4")


def read(folder: Path, name: str, data: bytes, **options):
    path = folder / name
    path.write_bytes(data)
    found = read_checkpoint(path, **options)
    assert found.path == path
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    return found


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype and found.dtype.isnative
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


# -- pickles of numpy arrays (Paddle) ----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_real_paddle_save(tmp_path, protocol):
    paddle = pytest.importorskip("paddle")
    layer = paddle.nn.Sequential(paddle.nn.Linear(30, 20), paddle.nn.BatchNorm1D(20))
    path = tmp_path / "model.pdparams"
    paddle.save(layer.state_dict(), str(path), protocol=protocol)
    found = read_checkpoint(str(path))
    assert found.format == "pdparams"
    assert list(found.tensors) == list(layer.state_dict())
    for name, value in layer.state_dict().items():
        same(found.tensors[name], value.numpy())


def test_real_paddle_save_of_a_wrapper_writes_pairs_of_name_and_array(tmp_path):
    paddle = pytest.importorskip("paddle")
    layer = paddle.nn.Linear(5, 2)
    path = tmp_path / "mae.pd"
    paddle.save({"model": layer.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=1e-3)}, str(path))
    found = read_checkpoint(path)
    assert set(found.tensors) == {"weight", "bias"}
    same(found.tensors["weight"], layer.weight.numpy())


def test_real_paddle_bfloat16_and_half(tmp_path):
    paddle = pytest.importorskip("paddle")
    values = paddle.to_tensor(WEIGHT)
    state = {"b": values.astype("bfloat16"), "h": values.astype("float16"), "i": values.astype("int64")}
    path = tmp_path / "model.pdparams"
    paddle.save(state, str(path))
    found = read_checkpoint(path).tensors
    same(found["b"], values.astype("bfloat16").astype("float32").numpy())
    same(found["h"], WEIGHT.astype("f2"))
    same(found["i"], WEIGHT.astype("i8"))


def test_split_arrays_are_joined(tmp_path):
    parts = np.split(np.arange(24, dtype="f4"), [10, 20])
    state = {f"w@@.{i}": part for i, part in enumerate(parts)} | {"bias": BIAS}
    table = {"w": {"OriginShape": (4, 6), "slices": ["w@@.0", "w@@.1", "w@@.2"]}}
    state |= {"StructuredToParameterName@@": {"w": "w_0"}, "UnpackBigParamInfor@@": table}
    found = read(tmp_path, "m.pdparams", pickle.dumps(state, 2)).tensors
    assert set(found) == {"w", "bias"}
    same(found["w"], np.arange(24, dtype="f4").reshape(4, 6))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_orders_types_and_sizes(tmp_path, protocol):
    rng = np.random.default_rng(5)
    state = {
        "fortran": np.asfortranarray(WEIGHT),
        "big": WEIGHT.astype(">f8"),
        "large": rng.integers(0, 256, (40, 50), "u1"),
        "empty": np.zeros((0, 3), "f4"),
        "scalar": np.array(2.5, "f4"),
        "mask": np.array([[True], [False]]),
        "one": np.array([7], "i4"),
    }
    found = read(tmp_path, "m.pdparams", pickle.dumps(state, protocol)).tensors
    for name, value in state.items():
        same(found[name], value.astype(value.dtype.newbyteorder("=")))


def test_protocol_2_bytes_of_every_value_survive_the_chunk_boundaries(tmp_path):
    array = np.random.default_rng(1).integers(0, 256, 3_000_001, "u1")
    same(read(tmp_path, "m.pdparams", pickle.dumps({"a": array}, 2)).tensors["a"], array)


# -- torch -------------------------------------------------------------------------------------------------

CODES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"]


@pytest.mark.parametrize("code", CODES)
def test_torch_zip_element_types(tmp_path, code):
    values = np.array([[0, 1, 2], [3, 0, 5]], code)
    part = storage("0", code, 6)
    data = torch_zip({"w": tensor(part, (2, 3), (3, 1))}, {"0": values.tobytes()})
    found = read(tmp_path, "w.pth", data)
    assert found.format == "torch-zip"
    same(found.tensors["w"], values)


def test_torch_zip_views_parameters_and_metadata(tmp_path):
    shared, half = storage("0", "f4", 12), storage("1", "bf16", 3)
    state = {
        "w": parameter(tensor(shared, (3, 4), (4, 1))),
        "transposed": tensor(shared, (4, 3), (1, 4)),
        "corner": tensor(shared, (2, 2), (4, 1), 5),
        "scalar": tensor(shared, (), (), 11),
        "none": tensor(shared, (0, 4), (4, 1)),
        "bf16": tensor(half, (3,), (1,)),
    }
    ordered = Built(ORDERED, {"_metadata": {"": {"version": 1}}})
    filled = {**state, "num_batches": 3}
    extras = {
        "epoch": 3,
        "args": Built(Call(Name("argparse", "Namespace"), ()), {"lr": 0.1}),
        "meta": ordered,
    }
    data = torch_zip({"state_dict": filled, **extras}, {"0": WEIGHT.tobytes(), "1": upper_half(BIAS)})
    found = read(tmp_path, "w.bin", data).tensors
    assert set(found) == set(state)
    same(found["w"], WEIGHT)
    same(found["transposed"], WEIGHT.T)
    same(found["corner"], WEIGHT[1:3, 1:3])
    same(found["scalar"], np.array(WEIGHT[2, 3]))
    same(found["none"], np.zeros((0, 4), "f4"))
    same(found["bf16"], BIAS)  # 1.0, -2.5 and 3.25 are exact in bfloat16
    assert np.shares_memory(found["w"], found["transposed"])


def test_torch_zip_big_endian(tmp_path):
    state = {
        "w": tensor(storage("0", "f4", 12), (3, 4), (4, 1)),
        "b": tensor(storage("1", "bf16", 3), (3,), (1,)),
    }
    halves = np.frombuffer(upper_half(BIAS), "<u2").astype(">u2").tobytes()
    found = read(
        tmp_path, "w.pth", torch_zip(state, {"0": WEIGHT.astype(">f4").tobytes(), "1": halves}, b"big")
    )
    same(found.tensors["w"], WEIGHT)
    same(found.tensors["b"], BIAS)


def test_torch_legacy(tmp_path):
    view = storage("0", "f4", 12, ("9", 4, 8))  # a view of the storage: elements 4 to 11
    state = {
        "w": parameter(tensor(storage("0", "f4", 12, None), (3, 4), (4, 1))),
        "tail": tensor(view, (3,), (2,), 1),
        "bf16": tensor(storage("1", "bf16", 3, None), (3,), (1,)),
    }
    data = torch_legacy(state, {"1": (3, upper_half(BIAS)), "0": (12, WEIGHT.tobytes())})
    found = read(tmp_path, "w.pth", data)
    assert found.format == "torch-legacy"
    same(found.tensors["w"], WEIGHT)
    same(found.tensors["tail"], WEIGHT.ravel()[[5, 7, 9]])
    same(found.tensors["bf16"], BIAS)


@pytest.mark.parametrize("zipped_layout", [True, False])
def test_real_torch_save(tmp_path, zipped_layout):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 4, 11)).sum().backward()
    optimizer.step()
    state = dict(model.state_dict())
    state["tied"] = state["0.weight"]
    state["transposed"] = state["2.weight"].T
    state["slice"] = state["2.weight"][:, 2:5]
    state["bf16"] = state["2.weight"].bfloat16()
    state["half"], state["bool"] = state["2.bias"].half(), state["2.bias"] > 0
    wrapped = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(p=Path("x")),
    }
    wrapped["scaler"] = {
        "scale": np.float64(3),
        "rng": np.arange(4),
        "shape": torch.Size([2]),
        "t": torch.float16,
    }
    path = tmp_path / "model.pth"
    torch.save(wrapped, path, _use_new_zipfile_serialization=zipped_layout)
    found = read_checkpoint(path)
    assert found.format == ("torch-zip" if zipped_layout else "torch-legacy")
    assert list(found.tensors) == list(state)
    for name, value in state.items():
        expected = value.float() if value.dtype == torch.bfloat16 else value
        same(found.tensors[name], expected.detach().numpy())


# -- safetensors and npz -----------------------------------------------------------------------------------


def test_safetensors_from_the_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    state = {"w": WEIGHT, "b": BIAS.astype("f2"), "i": np.arange(5), "m": BIAS > 0, "s": np.array(2.0)}
    library.save_file(state, tmp_path / "m.safetensors", metadata={"format": "np"})
    found = read_checkpoint(tmp_path / "m.safetensors")
    assert found.format == "safetensors" and set(found.tensors) == set(state)
    for name, value in state.items():
        same(found.tensors[name], value)


def test_safetensors_bfloat16_whatever_the_extension(tmp_path):
    header = {"module.b": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}, "__metadata__": {"a": "b"}}
    found = read(tmp_path, "m.bin", safetensors(header, upper_half(BIAS)))
    assert found.format == "safetensors"
    same(found.tensors["b"], BIAS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_flax_names(tmp_path, save):
    state = {"Transformer/encoderblock_0/kernel": WEIGHT, "head/bias": BIAS, "f": np.asfortranarray(WEIGHT)}
    state |= {"cls": np.zeros((1, 1, 4), ">f4"), "step": np.array(3), "empty": np.zeros((2, 0))}
    save(tmp_path / "m.npz", **state)
    found = read_checkpoint(tmp_path / "m.npz")
    assert found.format == "npz" and list(found.tensors) == list(state)
    for name, value in state.items():
        same(found.tensors[name], value.astype(value.dtype.newbyteorder("=")))


def test_npz_with_jax_bfloat16(tmp_path):
    opaque = np.frombuffer(upper_half(BIAS), "V2")
    same(read(tmp_path, "m.npz", zipped({"b.npy": npy(opaque)})).tensors["b"], BIAS)


# -- wrappers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 1},
        lambda s: {"model": s, "model_ema": {"w": WEIGHT + 1}, "optimizer": {"state": {0: {"step": 1.0}}}},
        lambda s: {"model_ema": s},
        lambda s: {"ema_state_dict": s},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"model": {"name": "vit", "depth": 12}, "state_dict": s},
        lambda s: {"state_dict": collections.OrderedDict(("module." + k, v) for k, v in s.items())},
        lambda s: {**s, "epoch": 3, "betas": (0.9, 0.999), "names": {"a", "b"}},
    ],
)
def test_wrappers_come_off(tmp_path, wrap):
    found = read(tmp_path, "m.pdparams", pickle.dumps(wrap({"w": WEIGHT, "b": BIAS}), 4)).tensors
    assert set(found) == {"w", "b"}
    same(found["w"], WEIGHT)


def test_a_module_prefix_that_only_some_names_have_stays(tmp_path):
    data = pickle.dumps({"module.w": WEIGHT, "b": BIAS}, 4)
    assert set(read(tmp_path, "m.pdparams", data).tensors) == {"module.w", "b"}


# -- the rest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("code", ["f2", "f4", "f8"])
def test_nonfinite_values_only_when_asked_for(tmp_path, bad, code):
    array = np.ones(1000, code)
    array[777] = bad
    data = pickle.dumps({"w": array}, 4)
    with pytest.raises(CheckpointError, match="'?w'? holds NaN or infinity"):
        read(tmp_path, "m.pdparams", data)
    same(read(tmp_path, "m.pdparams", data, allow_nonfinite=True).tensors["w"], array)


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(pickled({"w": numpy_array((3,), BIAS.tobytes())}))
    (tmp_path / "m.pdparams").symlink_to(tmp_path / "blob")
    same(read_checkpoint(tmp_path / "m.pdparams").tensors["w"], BIAS)


def test_reading_does_not_import_torch(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(torch_zip({"w": tensor(storage("0", "f4", 3), (3,), (1,))}, {"0": BIAS.tobytes()}))
    code = (
        "import sys; from tome_core.checkpoints import read_checkpoint;"
        "print(list(read_checkpoint(sys.argv[1]).tensors), 'torch' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "['w'] False", done.stderr


def test_the_readers_import_numpy_and_the_standard_library_only():
    dangerous = {"pickle", "marshal", "shelve", "ctypes", "importlib", "subprocess"}
    allowed = (set(sys.stdlib_module_names) - dangerous) | {"numpy"}
    folder = Path(read_checkpoint.__code__.co_filename).parent
    waiting, seen = ["reader"], set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        for node in ast.walk(ast.parse((folder / f"{module}.py").read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.startswith("tome_core.checkpoints."):
                    waiting += {name.rpartition(".")[2]} - seen
                elif name == "tome_core.checkpoints":  # `from tome_core.checkpoints import limits`
                    waiting += {a.name for a in node.names} - seen
                else:
                    assert name == "tome_core.errors" or name.split(".")[0] in allowed, (module, name)
    assert {"pickles", "torch_files", "paddle_files", "numpy_files", "limits"} <= seen
