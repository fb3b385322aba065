"""The digits example: the same digits in every form, training that repeats, the short form of it all."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from examples.digits import data, report, train
from examples.digits.compare import Row, Score, compare, open_runtimes
from tome_core.checkpoints import read_checkpoint
from tome_export.bundle import Bundle
from tome_export.evaluate import evaluate
from tome_export.preprocess import load_image
from tome_export.quiet import quiet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def digits():
    return data.load_digits()


@pytest.fixture(scope="module")
def few_digits(digits):
    """Two steps an epoch."""
    whole, held_out = digits
    return data.Digits(whole.pixels[:128], whole.labels[:128]), held_out


@pytest.fixture(scope="module")
def checkpoint(few_digits, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(data, "load_digits", lambda: few_digits)
        return train.train(tmp_path_factory.mktemp("trained"), 8, epochs=4)


def test_the_split_is_fixed_complete_and_even(digits):
    from sklearn.datasets import load_digits

    whole = load_digits()
    parts = [part.pixels for part in digits]
    assert [len(part) for part in parts] == [1347, 450]
    rows = np.concatenate(parts).reshape(1797, 64)
    original = np.rint(whole.images * 255 / 16).reshape(1797, 64)
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(original.astype(np.uint8), axis=0))
    assert rows.min() == 0 and rows.max() == 255
    for part in digits:
        share = np.bincount(part.labels) / np.bincount(whole.target)
        np.testing.assert_allclose(share, len(part.labels) / 1797, atol=0.01)
    np.testing.assert_array_equal(data.load_digits()[1].pixels, digits[1].pixels)


def test_a_png_gives_the_exported_model_exactly_what_was_trained_on(digits, tmp_path):
    held_out = digits[1]
    held_out.write_pngs(tmp_path)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == list("0123456789")
    files = sorted(tmp_path.rglob("*.png"), key=lambda path: path.name)
    assert [int(path.parent.name) for path in files] == held_out.labels.tolist()
    assert Image.open(files[0]).size == (8, 8)
    recipe = data.preset(data.PRESET, data.IMAGE_SIZE)
    np.testing.assert_array_equal(recipe.apply([load_image(path) for path in files]), held_out.images)
    assert held_out.images.shape == (450, 3, 32, 32) and held_out.images.max() == 1


def test_augmented_digits_stay_near_what_they_were(digits):
    images = digits[1].images[:32]
    changed = train.augment(paddle.to_tensor(images), np.random.default_rng(0)).numpy()
    assert changed.shape == images.shape and changed.dtype == images.dtype
    distance = np.abs(changed - images).mean((1, 2, 3))
    others = np.abs(images[:, None] - images[None]).mean((2, 3, 4)) + 9 * np.eye(32)
    assert distance.min() > 0.005 and (distance < np.median(others, axis=1)).all()
    np.testing.assert_array_equal(
        changed, train.augment(paddle.to_tensor(images), np.random.default_rng(0)).numpy()
    )


def test_training_repeats_and_its_result_is_kept(few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_digits", lambda: few_digits)
    lines = []
    first = train.train(tmp_path / "a", 8, seed=3, epochs=3, report=lines.append)
    losses = [float(re.search(r"loss (\S+)", line)[1]) for line in lines]
    assert len(losses) == 3 and losses[-1] < losses[0]
    again = train.train(tmp_path / "b", 8, seed=3, epochs=3)
    tensors, same = (read_checkpoint(path).tensors for path in (first, again))
    for name, value in tensors.items():
        np.testing.assert_array_equal(same[name], value)

    written = first.stat().st_mtime_ns
    assert train.train(tmp_path / "a", 8, seed=3, epochs=3) == first and first.stat().st_mtime_ns == written
    assert train.train(tmp_path / "a", 8, seed=3, epochs=1) != first
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.mark.parametrize("r", [0, 8])
def test_every_runtime_predicts_what_dygraph_does_and_files_do_too(r, checkpoint, few_digits, tmp_path):
    held_out = data.Digits(few_digits[1].pixels[:100], few_digits[1].labels[:100])
    with quiet():
        row = compare(checkpoint, 8, r, held_out, tmp_path / "bundle")
    assert {"dygraph", "paddle fp32", "onnx fp32"} <= {score.where for score in row.scores}
    assert all((score.same, score.total) == (100, 100) for score in row.scores)
    assert row.tokens == ((65,) * 7 if r == 0 else (65, 57, 49, 41, 33, 25, 17))

    held_out.write_pngs(tmp_path / "pngs")
    with quiet():
        evaluated = evaluate(tmp_path / "bundle", tmp_path / "pngs", workers=0)
    assert evaluated.evaluated == 100
    assert [score.right for score in row.scores] == [round(100 * evaluated.scores[0].top1)] * len(row.scores)
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.labels == data.CLASSES

    # What another feature adds to bundles is compared without a change here.
    half = dataclasses.replace(bundle.artifact("onnx"), precision="fp16")
    manifest = dataclasses.replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, half))
    with quiet():
        found = [where for _, where in open_runtimes(Bundle(bundle.path, manifest))]
    assert "onnx fp16" in found and "paddle fp16" not in found
    fp32 = [where for where in found if not where.endswith(" fp16")]
    assert fp32 == [score.where for score in row.scores[1:]]


def test_the_table_and_the_plot(tmp_path):
    rows = [
        Row(trained, r, (65, 17), (Score("dygraph", right, 100, 100), Score("onnx fp32", right - 1, 99, 100)))
        for trained, r, right in ((0, 0, 98), (0, 8, 90), (8, 8, 97))
    ]
    lines = report.markdown(rows).splitlines()
    assert len(lines) == 5 and all(line.count("|") == 6 for line in lines)
    assert "r = 0 | r = 8 | 65 -> 17 | 90.00% | 89.00%, 99 of 100 the same" in lines[3]
    report.plot(rows, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width == 600
    assert (tmp_path / "plot.png").stat().st_size < 200_000


# The program with a third of the blocks and a tenth of the digits.
SMALL = """
import dataclasses, gc, runpy
from tome_export.quiet import quiet
with quiet():
    from examples.digits import data, train
train.CONFIG = dataclasses.replace(train.CONFIG, depth=2)
parts = [data.Digits(part.pixels[:130], part.labels[:130]) for part in data.load_digits()]
data.load_digits = lambda: parts
gc.freeze()  # see tests/conftest.py
runpy.run_module("examples.digits", run_name="__main__", alter_sys=True)
"""


def run_example(out, *arguments, program=("-m", "examples.digits")):
    done = subprocess.run(
        [sys.executable, *program, "--out", str(out), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_short_form_of_the_whole(tmp_path):
    asked = ("--epochs", "1", "--r", "8", "--rounds", "1")
    said = run_example(tmp_path, *asked, program=("-c", SMALL))
    assert re.search(r"r = 8 +dygraph \d+/130, 130 the same +paddle fp32 \d+/130", said)
    assert re.search(r"a training step with r = 8 against r = 0: \d+\.\d\dx", said)
    assert len((tmp_path / "accuracy.md").read_text().splitlines()) == 4
    assert Image.open(tmp_path / "accuracy.png").format == "PNG"


@pytest.mark.slow
def test_the_whole(tmp_path):
    """Both models are right on more than 97 % as they were trained, on every runtime alike."""
    said = run_example(tmp_path, "--r", "0,8")
    counts = re.findall(r"r = (\d+) +dygraph (\d+)/450", said)
    assert [r for r, _ in counts] == ["0", "8", "0", "8"]
    assert int(counts[0][1]) > 0.97 * 450 and int(counts[3][1]) > 0.97 * 450
    assert set(re.findall(r"(\d+) the same", said)) == {"450"}
