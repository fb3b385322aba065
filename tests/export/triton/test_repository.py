"""The folder that `tome-export triton` writes: complete or not there, and nothing else touched."""

import json
import os

import numpy as np
import pytest

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, RequestError
from tome_export.preprocess import PRESETS, preset
from tome_export.triton import repository
from tome_export.triton.pbtxt import Symbol, as_text
from tome_export.triton.repository import write_repository
from tome_export.triton.serving import Serving

MODELS = ["vit", "vit_jpeg", "vit_postprocess", "vit_preprocess"]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_repository(tiny_bundle, tmp_path):
    out = tmp_path / "made" / "models"
    found = write_repository(tiny_bundle, out, Serving("vit"))
    assert listing(out) == sorted(found) == MODELS and listing(out.parent) == ["models"]
    model = out / "vit" / "1" / "model.onnx"
    assert model.read_bytes() == (tiny_bundle.path / "inference.onnx").read_bytes()
    assert not (out / "vit" / "labels.txt").exists()  # the bundle names no classes
    assert listing(out / "vit_jpeg" / "1") == []  # Triton wants the folder of a version, even an empty one


def test_other_models_of_a_repository_stay(tiny_bundle, tmp_path):
    (tmp_path / "other" / "1").mkdir(parents=True)
    write_repository(tiny_bundle, tmp_path, Serving("vit"))
    write_repository(tiny_bundle, tmp_path, Serving("vit.2"))
    assert listing(tmp_path) == sorted([*MODELS, *(name.replace("vit", "vit.2") for name in MODELS), "other"])


def test_replacing(tiny_bundle, tmp_path):
    write_repository(tiny_bundle, tmp_path, Serving("vit"))
    with pytest.raises(RequestError, match="vit: already exists; add --force"):
        write_repository(tiny_bundle, tmp_path, Serving("vit", max_batch=4))
    (tmp_path / "vit" / "old").touch()
    write_repository(tiny_bundle, tmp_path, Serving("vit", max_batch=4), force=True)
    assert listing(tmp_path) == MODELS and not (tmp_path / "vit" / "old").exists()
    assert "max_batch_size: 4\n" in (tmp_path / "vit" / "config.pbtxt").read_text()
    (tmp_path / "vit" / "config.pbtxt").unlink()
    with pytest.raises(RequestError, match="vit: is not a Triton model, so --force does not replace it"):
        write_repository(tiny_bundle, tmp_path, Serving("vit"), force=True)


def test_wrong_destinations(tiny_bundle, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="file: is a file"):
        write_repository(tiny_bundle, tmp_path / "file", Serving("vit"))
    with pytest.raises(RequestError, match="is an exported bundle; choose another folder"):
        write_repository(tiny_bundle, tiny_bundle.path, Serving("vit"))


def test_a_failure_leaves_nothing(tiny_bundle, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", "labels.json")

    monkeypatch.setattr(repository, "_fill_postprocess", full)
    with pytest.raises(BundleError, match="could not write the repository .No space left"):
        write_repository(tiny_bundle, tmp_path / "models", Serving("vit"))
    assert listing(tmp_path) == []


def test_a_changed_model_is_not_served(tiny_files, tmp_path):
    from tests.export import tiny

    bundle = tiny.write_bundle(tmp_path / "bundle", tiny_files)
    with open(bundle.path / "inference.onnx", "ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="inference.onnx: not as exported"):
        write_repository(bundle, tmp_path / "models", Serving("vit"))
    with pytest.raises(BundleError, match="holds no onnx model in int8"):
        write_repository(bundle, tmp_path / "models", Serving("vit", precision="int8"))


def test_weights_keep_the_name_that_the_graph_gives_them(tiny_bundle, tmp_path, monkeypatch):
    """Beside a graph of more than 2 GB lies a file that it names. Here one that no graph reads."""
    from dataclasses import replace

    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "inference.onnx").write_bytes((tiny_bundle.path / "inference.onnx").read_bytes())
    (bundle / "inference.onnx.data").write_bytes(b"weights")
    names = ("inference.onnx", "inference.onnx.data")
    artifact = tiny_bundle.artifact("onnx")
    files = {name: repository.sha256_of(bundle / name) for name in names}
    manifest = replace(tiny_bundle.manifest, artifacts=(replace(artifact, files=files),))
    refuse = lambda *arguments: (_ for _ in ()).throw(OSError("another file system"))  # noqa: E731
    monkeypatch.setattr(os, "link", refuse)  # then it copies
    write_repository(Bundle(bundle, manifest), tmp_path / "models", Serving("vit"))
    assert listing(tmp_path / "models" / "vit" / "1") == ["inference.onnx.data", "model.onnx"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_copied_preprocessing_makes_the_same_numbers(name, tiny_bundle, photos, bare_child, tmp_path):
    """Where there is numpy and Pillow and nothing else, this program neither."""
    from dataclasses import replace

    manifest = replace(tiny_bundle.manifest, preprocess=preset(name, 32))
    write_repository(Bundle(tiny_bundle.path, manifest), tmp_path / "models", Serving("vit"))
    photos[2].save(tmp_path / "photo.jpg")
    done = bare_child(
        """
import json, sys
from pathlib import Path
version, photo, out = map(Path, sys.argv[1:])
sys.path.insert(0, str(version))
from io import BytesIO
import numpy as np
from tome_export.preprocess import Preprocess, decode_image
import tome_export
assert Path(tome_export.__file__).parent.parent == version
recipe = Preprocess(**json.loads((version / "preprocess.json").read_text()))
np.save(out, recipe.apply(decode_image(BytesIO(photo.read_bytes()))))
""",
        *(tmp_path / "models" / "vit_preprocess" / "1", tmp_path / "photo.jpg", tmp_path / "image.npy"),
    )
    assert done.returncode == 0, done.stderr
    from tome_export.preprocess import load_inputs

    (wanted,) = load_inputs(tmp_path / "photo.jpg", [manifest.preprocess])
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), wanted)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "a/b"}, "--name 'a/b' is not a model name"),
        ({"max_batch": 0}, "--max-batch should be 1 to 4096, not 0"),
        ({"preferred_batches": (8, 64)}, "--preferred-batch 64 is not between 1 and --max-batch 32"),
        ({"max_delay_us": -1}, "--max-delay-us should be 0 or more"),
        ({"instances": 0}, "--instances should be at least 1"),
        ({"preprocess_instances": 0}, "--preprocess-instances should be at least 1"),
        ({"top": 0}, "--top should be at least 1"),
        ({"threads": 0}, "--threads should be at least 1"),
        ({"tensorrt": True}, "--tensorrt runs on GPUs; add --gpu"),
        ({"gpu": True, "precision": "int8"}, "int8 model is made for CPUs"),
    ],
)
def test_requests_that_make_no_sense(values, told):
    with pytest.raises(RequestError, match=told):
        Serving(**({"name": "vit"} | values))


def test_text_format():
    message = {
        "a": 'quote " and \\',
        "b": None,
        "c": [1, 2],
        "d": [{"e": True}, {"e": False}],
        "f": Symbol("F"),
    }
    assert as_text(message) == (
        'a: "quote \\" and \\\\"\nc: [1, 2]\nd {\n  e: true\n}\nd {\n  e: false\n}\nf: F\n'
    )


def test_labels(tiny_bundle, tmp_path):
    from dataclasses import replace

    labels = ("cat", "dög", "", "two\nlines", "x")
    for case, (names, classified) in enumerate({labels: False, labels[:3] + ("y", "x"): True}.items()):
        manifest = replace(tiny_bundle.manifest, labels=names)
        out = tmp_path / str(case)
        write_repository(Bundle(tiny_bundle.path, manifest), out, Serving("vit"))
        kept = json.loads((out / "vit_postprocess" / "1" / "labels.json").read_text(encoding="utf-8"))
        assert tuple(kept) == names
        # Triton's own file has a label a line, so names of several lines cannot be in it.
        assert (out / "vit" / "labels.txt").exists() == classified
