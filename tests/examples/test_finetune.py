"""The fine-tuning example as its user runs it: training, interruption, and the command it names."""

import io
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from rich.console import Console

from tests.export import small
from tome_core import apply_patch
from tome_core.checkpoints.loading import load_checkpoint
from tome_export.bundle import Bundle
from tome_export.errors import RequestError
from tome_export.predict import predict_files
from tome_export.preprocess import load_image, preset
from tome_export.quiet import quiet

ROOT = Path(__file__).resolve().parents[2]
MODEL = ["--model", "small_vit", "--r", "1", "--batch", "8", "--epochs", "4"]
# The two programs, knowing the small models by name; as they are they run in test_a_wrong_request_...
TRAIN = """
import runpy
from tests.export import small
with small.registered():
    runpy.run_module("examples.finetune", run_name="__main__", alter_sys=True)
"""
EXPORT = """
from tests.export import small
from tome_export.cli import main
with small.registered():
    main()
"""


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory):
    """Two classes: parts of a photograph of a temple and of one of a flower."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    folder = tmp_path_factory.mktemp("photos")
    for name in ("china", "flower"):
        photo = Image.fromarray(load_sample_image(f"{name}.jpg"))
        (folder / name).mkdir()
        for number in range(20):
            left, top = number % 5 * 100, number // 5 * 80
            photo.crop((left, top, left + 160, top + 160)).save(folder / name / f"{number}.png")
    return folder


def start(*arguments, program=("-c", TRAIN)):
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    said, complaints = process.communicate(timeout=300)
    return process.returncode, said, complaints


@pytest.fixture(scope="module")
def trained(photo_folder, tmp_path_factory):
    """(--out, what a whole run says)"""
    out = tmp_path_factory.mktemp("whole") / "out"
    status, said, complaints = finish(start("--data", photo_folder, "--out", out, "--workers", 0, *MODEL))
    assert (status, complaints) == (0, ""), complaints
    return out, said


def test_the_loss_falls_and_the_model_learns(trained):
    out, said = trained
    assert "small_vit at 64 px, 65 -> 60 tokens" in said
    assert "2 classes, 32 images to train on, 8 to validate on" in said
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", said)]
    assert len(losses) == 4 and losses[-1] < losses[0] and losses[-1] < math.log(2)
    assert max(float(right) for right in re.findall(r"right +(\d+\.\d+)%", said)) >= 75
    assert (out / "labels.txt").read_text().split() == ["china", "flower"]


def test_the_command_it_names_exports_what_was_trained(trained, photo_folder):
    out, said = trained
    command = shlex.split(said.rstrip().splitlines()[-1])
    assert command[0] == "tome-export"
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, *command[1:]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(out / "infer")
    assert bundle.manifest.tome.r[0] == 1 and bundle.manifest.model.image_size == 64

    with small.registered():
        loaded = load_checkpoint("small_vit", out / "model.pdparams").model
    apply_patch(loaded).r = 1
    photos = sorted(photo_folder.rglob("*.png"))[::5]
    images = bundle.manifest.preprocess.apply([load_image(path) for path in photos])
    with paddle.no_grad():
        expected = paddle.nn.functional.softmax(loaded(paddle.to_tensor(images))).numpy()
    assert np.ptp(expected) > 0.1
    for runtime in ("paddle", "onnx"):
        with quiet():
            _, predictions = predict_files(out / "infer", photos, runtime, top=2)
        for row, classes in zip(expected, predictions, strict=True):
            assert [entry.label for entry in classes] == [("china", "flower")[i] for i in np.argsort(-row)]
            np.testing.assert_allclose([e.probability for e in classes], -np.sort(-row), atol=1e-5)


def test_an_interrupted_run_goes_on_to_the_same_weights(trained, photo_folder, tmp_path):
    out = tmp_path / "out"
    arguments = ("--data", photo_folder, "--out", out, "--workers", 0, *MODEL)
    process = start(*arguments)
    for line in process.stdout:
        if "epoch   2/4" in line:
            process.send_signal(signal.SIGINT)
            break
    status, said, _ = finish(process)
    assert status == 130 and "the same command goes on" in said and "epoch   4/4" not in said

    status, said, complaints = finish(start(*arguments))
    assert (status, complaints) == (0, "") and "going on after epoch" in said and "epoch   1/4" not in said
    found, expected = (paddle.load(str(folder / "resume.pdstate")) for folder in (out, trained[0]))
    assert found["best"] == expected["best"] and found["done"] == expected["done"] == 4
    for name, value in expected["model"].items():
        np.testing.assert_array_equal(found["model"][name].numpy(), value.numpy())

    status, _, complaints = finish(start(*arguments, "--seed", 1))
    assert status == 2 and "seed 0" in complaints and "--restart" in complaints


def test_it_starts_from_weights_with_a_new_head(photo_folder, tmp_path):
    """At no learning rate to speak of, what comes out is what went in, but for the head."""
    model = small.build("small_vit", 0, num_classes=5)
    paddle.save(model.state_dict(), str(tmp_path / "weights.pdparams"))
    out = tmp_path / "out"
    arguments = ("--data", photo_folder, "--out", out, "--workers", 2, *MODEL, "--epochs", 1, "--rate", 1e-12)
    status, said, complaints = finish(start(*arguments, "--weights", tmp_path / "weights.pdparams"))
    assert (status, complaints) == (0, ""), complaints
    found = paddle.load(str(out / "model.pdparams"))
    for name, value in model.state_dict().items():
        if name.startswith("head"):
            assert found[name].shape[-1] == 2
        else:
            np.testing.assert_allclose(found[name].numpy(), value.numpy(), atol=1e-6)


def test_a_wrong_request_is_one_line_and_status_2(photo_folder, tmp_path):
    asked = ("--data", photo_folder, "--out", tmp_path / "out", "--r", "many")
    status, said, complaints = finish(start(*asked, program=("-m", "examples.finetune")))
    assert (status, said) == (2, "") and "whole number" in complaints and len(complaints.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"data": ROOT / "nowhere"}, "no such folder"),
        ({"data": ROOT / ".ci"}, "fewer than two class folders"),
        ({"r": "1,2,-1"}, "whole number"),
        ({"model": "vit_b17"}, "vit_b16"),
        ({"amp": "int8"}, "bfloat16"),
        ({"image_size": 63}, "multiple of the patch size"),
        ({"weights": "nowhere.pdparams"}, "nowhere.pdparams"),
    ],
)
def test_what_else_is_refused(changes, complaint, photo_folder, tmp_path):
    from examples import finetune

    asked = {"data": photo_folder, "out": tmp_path / "out", "model": "vit_ti16", "weights": None, "r": "1"}
    asked |= {"image_size": None, "epochs": 1, "batch": 8, "rate": 1e-3, "amp": "off", "held_out": 0.2}
    asked |= {"workers": 0, "seed": 0, "restart": False}
    with pytest.raises(RequestError, match=complaint):
        finetune.run(SimpleNamespace(**{**asked, **changes}), Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_validation_images_are_what_the_exported_model_sees(
    photo_folder,
):
    from examples.pictures import Pictures, split

    labels, training, validation = split(photo_folder, 0.25, seed=0)
    assert labels == ["china", "flower"] and len(training) == 30 and len(validation) == 10
    assert not {file for file, _ in training} & {file for file, _ in validation}
    recipe = preset("vit", 64)
    file, _ = validation[0]
    image, _ = Pictures(validation, recipe)[0]
    np.testing.assert_array_equal(image, recipe.apply(load_image(file))[0])
    parts = [Pictures(validation, recipe, (0, epoch))[0][0] for epoch in (0, 0, 1)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert np.abs(parts[0] - parts[2]).mean() > 0.01
    for part in parts:  # normalised as the whole: no channel is shifted or scaled
        assert part.shape == image.shape and part.dtype == np.float32 and np.abs(part).max() <= 1
        np.testing.assert_allclose(part.mean((1, 2)), image.mean((1, 2)), atol=0.35)
