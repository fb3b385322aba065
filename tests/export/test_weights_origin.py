"""From an address of weights to the manifest: source, hash, layout, and the origin's own pre-processing."""

import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import paddle
import pytest

from tests.core.checkpoints.foreign import safetensors_file
from tests.export.web import serving
from tests.tiny_models import randomise
from tome_core import create_model
from tome_export.errors import RequestError
from tome_export.pipeline import export
from tome_export.predict import predict_files
from tome_export.preprocess import preset
from tome_export.quiet import quiet

SIZE, CLASSES = 32, 5


@pytest.fixture(scope="module")
def model():
    model = create_model("vit_ti16", image_size=SIZE, num_classes=CLASSES)
    randomise(model, 3)
    model.eval()
    return model


def test_weights_from_a_server_by_the_command_line(model, tmp_path, monkeypatch):
    linear = re.compile(r"(blocks.*(qkv|proj|fc1|fc2)|head)\.weight")
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    timm = {name: array.T.copy() if linear.fullmatch(name) else array for name, array in state.items()}
    data = safetensors_file(timm)
    monkeypatch.setenv("TOME_EXPORT_CACHE", str(tmp_path / "cache"))
    with serving() as web:
        web.pages["/vit.safetensors"] = data
        url = web.url.replace("//", "//ann:secret@") + "/vit.safetensors?token=secret"
        command = ["--model", "vit_ti16", "--r", "1", "--formats", "paddle", "--out", str(tmp_path / "out")]
        done = subprocess.run(
            [sys.executable, "-c", "from tome_export.cli import main; main()", *command]
            + ["--weights", url, "--weights-sha256", hashlib.sha256(data).hexdigest()],
            capture_output=True,
            text=True,
            timeout=200,
        )
        source = f"{web.url}/vit.safetensors"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("  download the weights ") and "secret" not in done.stdout
    text = (tmp_path / "out" / "manifest.json").read_text(encoding="utf-8")
    assert "secret" not in text
    weights, recipe = json.loads(text)["weights"], json.loads(text)["preprocess"]
    assert (weights["source"], weights["layout"]) == (source, "timm")
    assert weights["sha256"] == hashlib.sha256(data).hexdigest()
    assert (recipe["resize"], recipe["crop"], recipe["interpolation"]) == (35, SIZE, "bicubic")
    assert recipe["mean"] == [0.5, 0.5, 0.5]


def test_a_local_file_of_paddleclas_and_a_prediction_through_its_filter(model, tmp_path, photos):
    path = tmp_path / "vit.pdparams"
    paddle.save(model.state_dict(), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    options = {"weights": path, "weights_layout": "paddleclas", "r": 0, "formats": ["paddle"]}
    with pytest.raises(RequestError, match="it is another file"):
        export("vit_ti16", tmp_path / "out", **options, weights_sha256="0" * 64)
    assert not (tmp_path / "out").exists()
    with quiet():
        bundle = export("vit_ti16", tmp_path / "out", **options, weights_sha256=digest)
    assert (bundle.manifest.weights.source, bundle.manifest.weights.sha256) == ("vit.pdparams", digest)
    assert bundle.manifest.preprocess == preset("paddleclas", SIZE)

    photos[0].save(tmp_path / "photo.png")
    with quiet():
        _, [predictions] = predict_files(tmp_path / "out", [tmp_path / "photo.png"], top=CLASSES)
    expected = {}
    for name in ("paddleclas", "vit"):
        with paddle.no_grad():
            logits = model(paddle.to_tensor(preset(name, SIZE).apply(photos[0])))
        expected[name] = paddle.nn.functional.softmax(logits)[0].numpy()
    found = np.array([p.probability for p in sorted(predictions, key=lambda p: p.index)])
    np.testing.assert_allclose(found, expected["paddleclas"], atol=1e-5)
    assert np.abs(found - expected["vit"]).max() > 1e-3  # the filter is no detail
