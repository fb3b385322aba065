"""The manifest: what is written is read back, and damage is told by the field's name."""

import json
from dataclasses import replace

import pytest

from tests.export.tiny import make_manifest
from tome_export.errors import BundleError
from tome_export.manifest import SCHEMA_VERSION, Artifact, Manifest, TensorInfo, Versions

DIGEST = "0f" * 32


def hashed(**changes):
    return make_manifest(artifacts=(Artifact("onnx", "fp32", {"sub/inference.onnx": DIGEST}, 17),), **changes)


def edited(*path_and_value):
    """A good manifest's JSON with one place changed; `...` as the value deletes it."""
    *path, last, value = path_and_value
    data = json.loads(hashed().to_json())
    place = data
    for key in path:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


def test_round_trip():
    manifest = hashed(labels=("a", "b", "ç", "日本", "e"))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_json_has_the_contracts_layout():
    data = json.loads(hashed().to_json())
    assert next(iter(data)) == "schema_version" and data["schema_version"] == SCHEMA_VERSION == 1
    assert data["tome"]["tokens"] == [16, 12, 10] and data["tome"]["macs"]["base_blocks"] == [400, 400]
    assert data["inputs"] == [{"name": "image", "dtype": "float32", "shape": [-1, 3, 32, 32]}]
    assert data["labels"] is None and data["weights"]["sha256"] is None
    assert data["preprocess"] == {
        "resize": 36,
        "crop": 32,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "layout": "NCHW",
        "color": "RGB",
    }
    assert set(data["versions"]) == {
        "tome_export",
        "paddle",
        "paddle2onnx",
        "onnx",
        "onnxruntime",
        "python",
        "platform",
    }


def test_unknown_fields_are_skipped_at_every_level():
    data = json.loads(hashed().to_json())
    for place in (data, data["model"], data["tome"]["macs"], data["artifacts"][0], data["preprocess"]):
        place["added_later"] = {"anything": [1]}
    assert Manifest.from_json(json.dumps(data)) == Manifest.from_json(hashed().to_json())


def test_fields_with_defaults_may_be_absent():
    data = json.loads(hashed().to_json())
    del data["labels"], data["parity"], data["artifacts"][0]["opset"], data["artifacts"][0]["debug"]
    manifest = Manifest.from_json(json.dumps(data))
    assert manifest.labels is None and manifest.parity == () and manifest.artifacts[0].opset is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("model", ...), "model is missing"),
        (("model", "depth", ...), "model.depth is missing"),
        (("model", "depth", "2"), 'model.depth should be an integer, not "2"'),
        (("model", "depth", True), "model.depth should be an integer, not true"),
        (("model", "depth", 2.0), "model.depth should be an integer"),
        (("model", "num_heads", 0), "model.num_heads should be at least 1"),
        (("model", [1]), "model should be an object"),
        (("tome", "prop_attn", 1), "tome.prop_attn should be true or false"),
        (("tome", "r", [4]), "tome.r should have 2 entries, not 1"),
        (("tome", "r", [4, None]), "tome.r[1] should be an integer, not null"),
        (("tome", "tokens", [16, 12]), "tome.tokens should have 3 entries, not 2"),
        (("tome", "tokens", [16, 12, 11]), "tome.tokens[2] is 11"),
        (("tome", "macs", "base_blocks", [400]), "tome.macs.base_blocks should have 2 entries"),
        (("tome", "macs", "base_blocks", [400, -1]), "tome.macs.base_blocks should hold no negative"),
        (("outputs", []), "outputs should hold at least one"),
        (("outputs", 1, "name", "logits"), "outputs should hold at least one tensor, each with a name"),
        (("outputs", 0, "dtype", "complex64"), "outputs[0].dtype"),
        (("inputs", 0, "shape", [1, 3, 32, 32]), "inputs[0].shape"),
        (("preprocess", "interpolation", "cubic"), "preprocess is wrong: interpolation"),
        (("preprocess", "crop", 64), "preprocess is wrong: a crop of 64"),
        (("preprocess", "mean", [0.5, 0.5]), "preprocess.mean should have 3 entries, not 2"),
        (("preprocess", "std", [0.5, 0.5, 0]), "std above zero"),
        (("labels", ["a"]), "labels should name 5 classes, not 1"),
        (("weights", "sha256", "abc"), "weights.sha256"),
        (("artifacts", 0, "files", {}), "artifacts[0].files is empty"),
        (("artifacts", 0, "files", {"a.onnx": ""}), "artifacts[0].files holds no SHA-256"),
        (("artifacts", 0, "files", {"a.onnx": DIGEST.upper()}), "artifacts[0].files holds no SHA-256"),
        (("artifacts", 0, "files", ["a.onnx"]), "artifacts[0].files should be an object"),
        (("created", "yesterday"), "created should be an ISO 8601 time in UTC"),
        (("created", "2026-01-02T03:04:05"), "created should be"),
        (("created", "2026-01-02T03:04:05+02:00"), "created should be"),
        (("schema_version", ...), "schema_version should be an integer, not null"),
        (("schema_version", 0), "schema_version is 0, expected 1"),
        (("schema_version", 2), "upgrade tome-export"),
    ],
)
def test_damage_is_one_line_that_names_the_field(change, named):
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(edited(*change))
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "C:/x", "..\\x", "", ".", "a//b", "./a", "a\0b", "manifest.json"],
)
def test_artifact_paths_stay_in_the_folder(path):
    for where in ("files", "debug"):
        with pytest.raises(BundleError, match=rf"artifacts\[0\]\.{where}"):
            Manifest.from_json(edited("artifacts", 0, where, {path: DIGEST}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "[" * 100_000, '{"schema_version": NaN}', "9" * 9999], ids=range(8)
)
def test_not_a_manifest_at_all(text):
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(text)
    assert "manifest.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_numbers_beyond_floats_are_refused(number):
    text = edited("parity", 0, "max_abs", 12345.0).replace("12345.0", number)
    with pytest.raises(BundleError, match=r"parity\[0\]\.max_abs is not a finite number"):
        Manifest.from_json(text)


def test_a_nan_measure_is_not_written():
    manifest = hashed()
    bad = replace(manifest, parity=(replace(manifest.parity[0], max_abs=float("nan")),))
    with pytest.raises(BundleError, match="a figure is not finite"):
        bad.to_json()


def test_hashes_must_be_filled_in_before_writing():
    with pytest.raises(BundleError, match=r"artifacts\[0\]\.files holds no SHA-256"):
        make_manifest().to_json()


def test_one_artifact_per_format_and_precision():
    artifact = Artifact("onnx", "fp32", {"a.onnx": DIGEST})
    with pytest.raises(BundleError, match=r"artifacts\[1\] repeats onnx fp32"):
        make_manifest(artifacts=(artifact, replace(artifact, files={"b.onnx": DIGEST})))


def test_building_checks_too():
    with pytest.raises(BundleError, match="inputs"):
        make_manifest(inputs=(TensorInfo("image", "float32", (3, 32, 32)),))


def test_artifact_file_by_suffix():
    artifact = Artifact("paddle", "fp32", {"a.json": DIGEST, "a.pdiparams": DIGEST, "b.json": DIGEST})
    assert artifact.file(".pdiparams") == "a.pdiparams"
    for suffix in (".json", ".onnx"):
        with pytest.raises(BundleError, match=f"files ending in {suffix}"):
            artifact.file(suffix)


def test_versions_are_those_of_the_imported_packages():
    import onnx
    import onnxruntime

    versions = Versions.installed()
    assert (versions.onnx, versions.onnxruntime) == (onnx.__version__, onnxruntime.__version__)
