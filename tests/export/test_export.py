"""The pipeline: manifests say what is so, what is wrong gets no bundle, a request repeated gives the same."""

import hashlib
import json
import platform
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import paddle
import pytest

from tests import reference
from tests.export import small
from tome_core.errors import CheckpointError, ModelError, ScheduleError
from tome_export.bundle import Bundle
from tome_export.errors import BundleError, ConversionError, ParityError, RequestError
from tome_export.quiet import quiet
from tome_export.request import ExportRequest
from tome_export.runtimes import open_runtime
from tome_export.steps import Steps

every_case = pytest.mark.parametrize("case", small.CASES, ids="-".join)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def sha256sum(path):
    """By other means than the product's: the whole file at once."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# ---------------------------------------------------------------- the manifest


@every_case
def test_model_and_schedule(case, small_bundles):
    name, schedule = case
    data = json.loads((small_bundles[case].path / "manifest.json").read_text(encoding="utf-8"))
    distilled = name.endswith("distilled")
    assert data["schema_version"] == 1
    assert data["model"] == {
        "name": name,
        "family": {"small_vit": "vit", "small_mae": "mae"}.get(name, "deit"),
        "image_size": 64,
        "patch_size": 8,
        "num_classes": 11,
        "depth": 5,
        "embed_dim": 48,
        "num_heads": 3,
    }
    tokens = 66 if distilled else 65
    asked = reference.expand_r(small.SCHEDULES[schedule], 5)
    r, counts = reference.token_counts(asked, tokens, 2 if distilled else 1)
    assert data["tome"]["r"] == r and data["tome"]["tokens"] == counts
    assert data["tome"]["prop_attn"] is (name != "small_mae")
    macs = data["tome"]["macs"]
    for key, tokens_of in {"tome": counts, "base": [tokens] * 6}.items():
        blocks = [
            reference.block_macs(before, after, 48, 192)
            for before, after in zip(tokens_of[:-1], tokens_of[1:], strict=True)
        ]
        assert macs[f"{key}_blocks"] == blocks
        heads = 48 * 11 * (2 if distilled else 1)
        assert macs[key] == reference.model_macs(tokens_of, 48, 192, 64, 8, heads)
    assert (macs["tome"] == macs["base"]) is (schedule == "r0")


@every_case
def test_tensors_files_and_parity(case, small_bundles):
    bundle = small_bundles[case]
    data = json.loads((bundle.path / "manifest.json").read_text(encoding="utf-8"))
    tokens = 66 if case[0].endswith("distilled") else 65
    assert data["inputs"] == [{"name": "image", "dtype": "float32", "shape": [-1, 3, 64, 64]}]
    assert data["outputs"] == [
        {"name": "logits", "dtype": "float32", "shape": [-1, 11]},
        {"name": "sources", "dtype": "int32", "shape": [-1, tokens]},
    ]
    assert data["labels"] is None
    files = [
        "inference.debug.json", "inference.json", "inference.onnx", "inference.pdiparams", "manifest.json"
    ]  # fmt: skip
    assert names(bundle.path) == files  # and no weights folder, raw graph or other litter
    shapes = [(entry["format"], entry["precision"], entry["opset"]) for entry in data["artifacts"]]
    assert shapes == [("paddle", "fp32", None), ("onnx", "fp32", 17)]
    hashes = {
        name: digest
        for entry in data["artifacts"]
        for name, digest in (entry["files"] | entry["debug"]).items()
    }
    assert hashes == {name: sha256sum(bundle.path / name) for name in files[:4]}
    assert list(data["artifacts"][0]["debug"]) == ["inference.debug.json"]

    assert [entry["runtime"] for entry in data["parity"]] == ["paddle", "onnx"]
    for entry in data["parity"]:
        assert entry["passed"] is True and entry["against"] == "dygraph" and entry["precision"] == "fp32"
        assert entry["batch_sizes"] == [1, 3] and entry["inputs"] == 6 and entry["findings"] == []
        assert entry["tolerance"] == entry["limits"]["logits"] < 2e-5
        assert 0 <= entry["forced"]["max_rel"] <= entry["tolerance"]
        assert entry["top1_agreement"] == 1 and entry["cosine_min"] > 0.999999
        r = data["tome"]["r"]
        assert [block["r"] for block in entry["blocks"]] == r
        assert (entry["merge_agreement"] is None) == (max(r) == 0)
        assert sum(block["agreed"] + block["near_ties"] for block in entry["blocks"]) == entry["decisions"]


def test_weights_preprocessing_and_versions(small_bundles):
    recipes = {
        "small_vit": ([0.5] * 3, [0.5] * 3),
        "small_deit": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "small_mae": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }
    for name, (mean, std) in recipes.items():
        data = json.loads((small_bundles[name, "r8"].path / "manifest.json").read_text(encoding="utf-8"))
        weights = data["weights"]
        assert (weights["source"], weights["sha256"], weights["seed"]) == ("random", None, small.SEED)
        assert data["preprocess"] == {
            "resize": 73,  # 64 * 256 / 224, rounded down
            "crop": 64,
            "interpolation": "bicubic",
            "mean": mean,
            "std": std,
            "layout": "NCHW",
            "color": "RGB",
        }
        versions = data["versions"]
        for field, package in {
            "tome_export": "tome-export",
            "paddle": "paddlepaddle",
            "paddle2onnx": "paddle2onnx",
            "onnx": "onnx",
            "onnxruntime": "onnxruntime",
        }.items():
            assert versions[field] == metadata.version(package)
        assert versions["python"] == platform.python_version()
        assert versions["platform"] == platform.platform()
        assert data["created"].endswith("+00:00")


def test_the_parity_samples_are_named_for_verify(small_bundles):
    for bundle in small_bundles.values():
        kinds = [name.split(":")[0] for name in bundle.manifest.parity_samples]
        assert kinds == ["photo", "noise", "half", "flat", "extreme", "photo"]


# ---------------------------------------------------------------- weights


def test_a_weights_file_is_what_is_exported(tmp_path, details):
    layer = small.build("small_deit_distilled", (16, -1.0), seed=21)
    paddle.save(layer.state_dict(), str(tmp_path / "mine.pdparams"))
    bundle = small.export_small(
        "small_deit_distilled",
        tmp_path / "out",
        r=(16, -1.0),
        weights=tmp_path / "mine.pdparams",
        outputs=("logits", "sources"),
        labels=[f"kind {index}" for index in range(11)],
    )
    weights = bundle.manifest.weights
    assert (weights.source, weights.seed) == ("mine.pdparams", None)
    assert weights.sha256 == sha256sum(tmp_path / "mine.pdparams")
    assert bundle.manifest.labels == tuple(f"kind {index}" for index in range(11))
    images = bundle.manifest.preprocess.apply(details)
    wanted, margins = small.answers(layer, images)
    clear = margins >= 1e-5
    assert clear.sum() >= 8
    for name in ("paddle", "onnx"):
        with open_runtime(name, bundle) as runtime:
            found = runtime.run(images[clear])
        assert small.relative(found["logits"], wanted["logits"][clear]) <= 1e-4
        np.testing.assert_array_equal(found["sources"], wanted["sources"][clear])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("blocks.3.norm2.bias"), r"blocks\.3\.norm2\.bias"),
        (lambda state: state.update({"extra.weight": paddle.zeros([2])}), r"extra\.weight"),
        (lambda state: state.update({"head.weight": paddle.zeros([48, 12])}), r"head"),
    ],
    ids=["missing", "unexpected", "mis-shaped"],
)
def test_weights_that_do_not_fit_are_named_and_nothing_appears(change, told, tmp_path):
    state = dict(small.build("small_vit", 0).state_dict())
    change(state)
    paddle.save(state, str(tmp_path / "bad.pdparams"))
    with pytest.raises(CheckpointError, match=told) as caught:
        small.export_small("small_vit", tmp_path / "out", weights=tmp_path / "bad.pdparams")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert names(tmp_path) == ["bad.pdparams"]


# ---------------------------------------------------------------- what fails leaves nothing


class Tamper(Steps):
    """Real steps; when one begins, something happens to the files that are not yet a bundle."""

    def __init__(self, step, parent, change):
        super().__init__()
        self._step, self._parent, self._change = step, parent, change
        self.happened = False

    def __call__(self, name):
        if name == self._step:
            (folder,) = (path for path in self._parent.iterdir() if ".partial-" in path.name)
            self._change(folder)
            self.happened = True
        return super().__call__(name)


def negate_a_weight_in_paddles_file(folder):
    path = folder / "inference.pdiparams"
    value = small.build("small_vit", 0).blocks[2].mlp.fc1.weight.numpy()
    assert path.read_bytes().count(value.tobytes()) == 1
    path.write_bytes(path.read_bytes().replace(value.tobytes(), (-value).tobytes()))


def transpose_a_square_weight_in_onnx(folder):
    model = onnx.load(folder / "inference.onnx")
    (tensor,) = (t for t in model.graph.initializer if t.name == "blocks.2.attn.proj.weight")
    value = onnx.numpy_helper.to_array(tensor)
    assert value.shape[0] == value.shape[1]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(value.T), tensor.name))
    onnx.save(model, folder / "inference.onnx")


def cut_the_traced_model(folder):
    text = (folder / "inference.debug.json").read_text()
    (folder / "inference.debug.json").write_text(text[: len(text) // 2])


@pytest.mark.parametrize(
    ("step", "change", "formats", "told"),
    [
        (
            "parity",
            negate_a_weight_in_paddles_file,
            ("paddle",),
            r"^paddle against dygraph: block 2, mlp: differs by [\d.]+",
        ),
        (
            "parity",
            transpose_a_square_weight_in_onnx,
            ("paddle", "onnx"),
            r"^onnx against dygraph: block 2, attention: differs by",
        ),
    ],
    ids=["paddle", "onnx"],
)
def test_an_artifact_that_computes_something_else_never_gets_its_name(step, change, formats, told, tmp_path):
    out = tmp_path / "parent" / "out"
    out.parent.mkdir()
    steps = Tamper(step, out.parent, change)
    with pytest.raises(ParityError, match=told) as caught:
        small.export_small("small_vit", out, steps=steps, formats=formats, r=8)
    assert steps.happened and caught.value.exit_code == 1
    amount = float(str(caught.value).split(" by ")[1].split()[0])
    assert 1e-3 < amount < 10 and "given the same input" in str(caught.value)
    assert names(out.parent) == []


def test_a_failing_replacement_leaves_the_old_bundle(tmp_path, small_bundles):
    out = tmp_path / "out"
    shutil.copytree(small_bundles["small_vit", "r8"].path, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    steps = Tamper("parity", tmp_path, negate_a_weight_in_paddles_file)
    with pytest.raises(ParityError):
        small.export_small("small_vit", out, steps=steps, formats=("paddle",), force=True)
    assert names(tmp_path) == ["out"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_conversion_that_fails_leaves_nothing(tmp_path):
    steps = Tamper("onnx", tmp_path, cut_the_traced_model)
    with pytest.raises(ConversionError, match="paddle2onnx could not convert the model") as caught:
        small.export_small("small_vit", tmp_path / "out", steps=steps)
    assert steps.happened and caught.value.exit_code == 1
    assert names(tmp_path) == []


# ---------------------------------------------------------------- repeatability


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path, small_bundles):
    """`small_bundles` was written by another process, with the same seed."""
    outputs = ("logits", "sources")
    again = small.export_small("small_vit", tmp_path / "again", r=16, outputs=outputs)
    asked = {"r": 16, "outputs": outputs, "formats": ("paddle",), "seed": small.SEED + 1}
    other = small.export_small("small_vit", tmp_path / "other", **asked)
    first = {path.name: path.read_bytes() for path in small_bundles["small_vit", "r16"].path.iterdir()}
    for name in ("inference.pdiparams", "inference.onnx"):
        assert (again.path / name).read_bytes() == first[name], name
    found = (other.path / "inference.pdiparams").read_bytes()
    assert len(found) == len(first["inference.pdiparams"]) and found != first["inference.pdiparams"]
    assert other.manifest.weights.seed == small.SEED + 1


def test_the_result_is_the_bundle_on_disk(tmp_path):
    steps = Steps()
    bundle = small.export_small("small_mae", tmp_path / "out", r=[3, 0, 2], formats=("paddle",), steps=steps)
    assert Bundle.open(tmp_path / "out") == bundle
    bundle.verify_hashes()
    assert bundle.manifest.tome.r == (3, 0, 2, 0, 0)
    assert [artifact.format for artifact in bundle.manifest.artifacts] == ["paddle"]
    assert names(tmp_path / "out") == [
        *("inference.debug.json", "inference.json", "inference.pdiparams", "manifest.json")
    ]
    assert list(steps.seconds) == ["model", "trace", "parity", "write"]
    assert all(seconds >= 0 for seconds in steps.seconds.values())


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        ({"model": "vit_b61"}, ModelError, "unknown model 'vit_b61'; did you mean .*vit_b16"),
        ({"r": -1}, ScheduleError, "-1"),
        ({"r": [16] * 13}, ScheduleError, "12"),
        ({"r": (16, 2.0)}, ScheduleError, "2.0"),
        ({"r": (16, float("nan"))}, ScheduleError, "nan"),
        ({"r": 16.5}, ScheduleError, "16.5"),
        ({"r": True}, ScheduleError, "True"),
        ({"image_size": 100}, ModelError, "not a multiple of the patch size 16; try 96"),
        ({"image_size": 0}, ModelError, "image_size must be a positive whole number"),
        ({"num_classes": 0}, ModelError, "num_classes must be a positive whole number"),
        ({"opset": 12}, RequestError, "opset 12"),
        ({"formats": ("onnx",)}, RequestError, "ask for paddle,onnx"),
        ({"formats": ()}, RequestError, "at least one of paddle, onnx"),
        ({"formats": ("paddle", "tensorrt")}, RequestError, "no format 'tensorrt'"),
        ({"formats": ("paddle", "paddle")}, RequestError, "once"),
        ({"outputs": ("sources",)}, RequestError, "must include logits"),
        ({"outputs": ("logits", "size")}, RequestError, "no output 'size'"),
        ({"seed": -1}, RequestError, "seed"),
        ({"num_classes": 3, "labels": ["a", "b"]}, RequestError, "2 labels for 3 classes"),
        ({"labels": ["a"]}, RequestError, "1 labels for 1000 classes"),
        ({"preprocess": "none"}, RequestError, "'none'"),
    ],
)
def test_impossible_requests_are_refused_at_once(asked, kind, told):
    with pytest.raises(kind, match=told) as caught:
        ExportRequest(**{"model": "vit_ti16", **asked})
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_taken_name_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").mkdir()
    steps = Steps()
    with quiet(), pytest.raises(BundleError, match="already exists; add --force"):
        small.export_small("small_vit", tmp_path / "out", steps=steps)
    assert steps.seconds == {} and names(tmp_path) == ["out"]
