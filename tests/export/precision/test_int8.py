"""int8 from end to end: accuracy on real digits, the gate, blocks kept in float, the commands."""

import numpy as np
import pytest

from examples.digits import data, train
from tests.export.precision.models import hard_to_quantise
from tome_export import export, open_runtime, views
from tome_export.bundle import Bundle
from tome_export.errors import AccuracyError
from tome_export.evaluate import Contender, evaluate
from tome_export.predict import predict_files
from tome_export.quiet import quiet

INT8 = {"preprocess": data.PRESET, "labels": data.CLASSES, "precisions": ("fp32", "int8")}
HARD = 2


@pytest.fixture(scope="module", params=["dynamic", "static"])
def digits_bundle(request, checkpoint, digit_folder, tmp_path_factory):
    how = {"images": digit_folder} if request.param == "dynamic" else {"calibration": digit_folder}
    out = tmp_path_factory.mktemp("digits") / request.param
    with quiet():
        return export(train.load(checkpoint, 8), out, **INT8, **how)


def right(bundle, digits, precision):
    """How many of the held-out digits a model of the bundle recognises, one at a time."""
    with open_runtime("onnx", bundle, precision=precision, threads=1) as runtime:
        best = [runtime.run(image[None])["logits"].argmax() for image in digits.images]
    return int((np.array(best) == digits.labels).sum())


def test_digits_are_recognised_as_in_float(digits_bundle, digits):
    """Half a point: 2 of 450."""
    full, reduced = (right(digits_bundle, digits[1], precision) for precision in ("fp32", "int8"))
    assert full > 90  # it has learnt something: chance is 45
    assert abs(full - reduced) <= 0.005 * 450
    (result,) = digits_bundle.manifest.precisions
    assert result.passed and result.min_agreement == 0.99 and result.source == "pictures"
    assert result.figures.top1_agreement >= 0.99 and 0 < result.figures.max_rel < 0.25
    judged = digits_bundle.manifest.parity[-1]
    assert (judged.runtime, judged.precision, judged.passed) == ("onnx", "int8", True)
    sizes = digits_bundle.file_sizes()
    assert sizes["inference.int8.onnx"] < 0.5 * sizes["inference.onnx"]
    digits_bundle.verify_hashes()
    assert not list(digits_bundle.path.rglob("*.npy"))


def test_what_was_measured_is_shown(digits_bundle):
    said = views.precisions(digits_bundle.manifest.precisions)
    (result,) = digits_bundle.manifest.precisions
    assert f"24 layers; compared with onnx fp32 on {result.inputs} pictures" in said
    assert f"onnx int8: {result.method}" in said and f"{result.figures.top1_agreement:.2%}" in said


def test_the_commands_take_the_precision(digits_bundle, digit_folder):
    photos = sorted(digit_folder.rglob("*.png"))[:3]
    with quiet():
        name, full = predict_files(digits_bundle.path, photos, "onnx", top=1)
        used, reduced = predict_files(digits_bundle.path, photos, top=1, precision="int8")
        found = evaluate(Contender.open(digits_bundle.path, precision="int8"), digit_folder, workers=0)
    assert used == name  # ONNX Runtime, chosen because it has int8
    assert [classes[0].label for classes in reduced] == [classes[0].label for classes in full]
    assert any(a[0].probability != b[0].probability for a, b in zip(full, reduced, strict=True))
    assert (found.scores[0].runtime, found.scores[0].precision) == ("onnx", "int8")
    assert found.evaluated == 450


def test_a_model_that_int8_breaks_is_refused_and_the_block_is_named(checkpoint, digit_folder, tmp_path):
    """One block made hard to quantise, the same function in float."""
    model = train.load(checkpoint, 8)
    hard_to_quantise(model, HARD)
    out = tmp_path / "out"
    with quiet(), pytest.raises(AccuracyError) as caught:
        export(model, out, images=digit_folder, **INT8)
    said = str(caught.value)
    assert caught.value.exit_code == 1 and "\n" not in said and list(tmp_path.iterdir()) == []
    assert "99.00% asked" in said and "of 450 pictures" in said
    assert f"the blocks that cost most, by their share of the error: {HARD} (" in said
    assert f"--keep-float {HARD} gives " in said and "even" not in said

    with quiet():
        bundle = export(model, out, images=digit_folder, keep_float=[str(HARD)], **INT8)
    (result,) = bundle.manifest.precisions
    assert result.passed and result.kept == (HARD,) and result.layers == 20
    # The promise is kept: the agreement that the message gave is what was measured now.
    assert f"gives {result.figures.top1_agreement:.2%}" in said


def test_random_weights_are_measured_and_not_held_to_a_floor(int8_bundles):
    for form, bundle in int8_bundles.items():
        (result,) = Bundle.open(bundle.path).manifest.precisions
        assert (result.method, result.min_agreement, result.passed) == (form, None, True)
        assert (result.calibrated, result.inputs, result.source) == (
            (21, 21, "pictures") if form == "static" else (0, 50, "samples")
        )
        assert "none: random weights" in views.precisions((result,))
        assert all(judged.passed for judged in bundle.manifest.parity)


def test_static_ranges_make_a_picture_independent_of_its_batch(int8_bundles, details):
    """Unlike dynamic ones, which are those of the whole batch."""
    error = {}
    for form, bundle in int8_bundles.items():
        images = bundle.manifest.preprocess.apply(details[:6])
        with open_runtime("onnx", bundle, precision="int8", threads=1) as runtime:
            alone = np.concatenate([runtime.run(image[None])["logits"] for image in images])
            error[form] = float(np.abs(runtime.run(images)["logits"] - alone).max())
    assert error["static"] < 1e-4 < 1e-3 < error["dynamic"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dynamic", "static"])
def test_the_fully_trained_digits_model(form, digits, digit_folder, tmp_path):
    checkpoint = train.train(tmp_path, 8)
    how = {"images": digit_folder} if form == "dynamic" else {"calibration": digit_folder}
    with quiet():
        bundle = export(train.load(checkpoint, 8), tmp_path / "out", **INT8, **how)
    full, reduced = (right(bundle, digits[1], precision) for precision in ("fp32", "int8"))
    assert full > 0.97 * 450 and abs(full - reduced) <= 0.005 * 450
