"""Parity inputs: repeatable from their names, photograph-like, and far from ties of the model at hand."""

import hashlib

import numpy as np
import pytest

from tests.export import small
from tome_export.errors import BundleError
from tome_export.preprocess import preset
from tome_export.reference import answer
from tome_export.samples import make_batch, make_sample

RECIPE = preset("vit", 64)


def neighbours(sample):
    """Mean correlation between pixels side by side, over the channels."""
    pairs = [(channel[:, :-1].ravel(), channel[:, 1:].ravel()) for channel in sample]
    return np.mean([np.corrcoef(left, right)[0, 1] for left, right in pairs])


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize("kind", ["photo", "noise"])
def test_samples_are_what_a_graph_takes(kind, size):
    sample = make_sample(f"{kind}:0", preset("deit", size))
    assert (sample.shape, sample.dtype) == ((3, size, size), np.float32)
    assert np.isfinite(sample).all() and np.abs(sample).max() < 10 and sample.std() > 0.2


def test_samples_are_repeatable_whatever_else_draws_numbers(child):
    names = ("photo:0", "noise:11", "photo:5")
    before = make_batch(names, RECIPE)
    np.random.seed(1)
    np.random.random(5)
    np.testing.assert_array_equal(make_batch(names, RECIPE), before)
    done = child(
        "import hashlib\n"
        "from tome_export.preprocess import preset\n"
        "from tome_export.samples import make_batch\n"
        f"print(hashlib.sha256(make_batch({names!r}, preset('vit', 64)).tobytes()).hexdigest())"
    )
    assert done.stdout.strip() == hashlib.sha256(before.tobytes()).hexdigest(), done.stderr


def test_no_two_are_alike():
    names = [f"{kind}:{seed}" for kind in ("photo", "noise") for seed in range(12)]
    assert len({make_sample(name, RECIPE).tobytes() for name in names}) == 24


def test_the_batch_is_its_samples():
    names = ("photo:1", "noise:1")
    batch = make_batch(names, RECIPE)
    for row, name in enumerate(names):
        np.testing.assert_array_equal(batch[row], make_sample(name, RECIPE))


def test_photographs_are_smooth_as_real_ones_are_and_noise_is_not(photos):
    real = [neighbours(image) for image in RECIPE.apply(photos)]
    made = [neighbours(make_sample(f"photo:{seed}", RECIPE)) for seed in range(6)]
    noise = [neighbours(make_sample(f"noise:{seed}", RECIPE)) for seed in range(6)]
    assert min(real) > 0.8 and min(made) > 0.8
    assert max(np.abs(noise)) < 0.1


def test_photographs_use_the_recipe():
    """The same picture, normalised in another way."""
    ours, theirs = (make_sample("photo:2", preset(name, 64)) for name in ("vit", "deit"))
    mean, std = np.float32(preset("deit", 64).mean), np.float32(preset("deit", 64).std)
    pixels = ours * 0.5 + 0.5
    np.testing.assert_allclose(
        ((pixels.transpose(1, 2, 0) - mean) / std).transpose(2, 0, 1), theirs, atol=1e-5
    )


@pytest.mark.parametrize("name", ["photo", "photo:", "photo:x", "film:1", "", "photo:-1", "photo:1.5"])
def test_unknown_names_are_an_error_of_the_bundle(name):
    with pytest.raises(BundleError, match="parity sample"):
        make_sample(name, RECIPE)


# ---------------------------------------------------------------- the model's answers to them


@pytest.mark.parametrize("model", small.MODELS)
def test_the_reference_is_what_the_model_says(model):
    layer = small.build(model, 16)
    reference = answer(layer, ("logits", "sources"), RECIPE)
    assert [name.split(":")[0] for name in reference.samples] == ["photo"] * 3 + ["noise"] * 3
    assert len(set(reference.samples)) == 6
    images = make_batch(reference.samples, RECIPE)
    wanted, margins = small.answers(layer, images)
    assert margins.min() >= 0.9e-5  # away from ties, as six of twenty-four can be
    np.testing.assert_array_equal(reference.outputs["sources"], wanted["sources"])
    assert small.relative(reference.outputs["logits"], wanted["logits"]) < 1e-5
    assert layer.tome.margins is None  # collecting them was for this once


def test_only_what_is_asked_for_is_answered():
    reference = answer(small.build("small_vit", 4), ("logits",), RECIPE)
    assert list(reference.outputs) == ["logits"] and reference.outputs["logits"].shape == (6, small.CLASSES)


def test_without_merging_the_first_samples_will_do():
    reference = answer(small.build("small_vit", 0), ("logits",), RECIPE)
    assert reference.samples == ("photo:0", "photo:1", "photo:2", "noise:0", "noise:1", "noise:2")


def test_samples_near_a_tie_are_passed_over():
    """Whose first samples hang on rounding: those with margins are taken, wherever they come."""
    first = ("photo:0", "photo:1", "photo:2")
    for seed in range(20):
        layer = small.build("small_deit", 8, seed=seed)
        _, margins = small.answers(layer, make_batch(first, RECIPE))
        near = {name for name, margin in zip(first, margins, strict=True) if margin < 0.5e-5}
        if near:
            break
    assert near, "no model here has near ties to pass over"
    assert not near & set(answer(layer, ("logits",), RECIPE).samples)


def test_where_every_sample_is_a_tie_there_are_samples_all_the_same():
    import paddle

    layer = small.build("small_vit", 8)
    for block in layer.blocks:  # no keys: all tokens are equally similar
        for parameter in (block.attn.qkv.weight, block.attn.qkv.bias):
            parameter.set_value(paddle.zeros_like(parameter))
    reference = answer(layer, ("logits",), RECIPE)
    assert len(reference.samples) == 6 and np.isfinite(reference.outputs["logits"]).all()
