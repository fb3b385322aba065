"""Parity inputs: repeatable from their names, photograph-like or full of ties, or from a folder."""

import hashlib

import numpy as np
import pytest

from tome_export.errors import ImageError, RequestError
from tome_export.parity.samples import KINDS, image_files, is_natural, make_batch, make_sample, sample_names
from tome_export.preprocess import preset

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
        "from tome_export.parity.samples import make_batch\n"
        f"print(hashlib.sha256(make_batch({names!r}, preset('vit', 64)).tobytes()).hexdigest())"
    )
    assert done.stdout.strip() == hashlib.sha256(before.tobytes()).hexdigest(), done.stderr


def test_no_two_are_alike():
    names = [f"{kind}:{seed}" for kind in KINDS for seed in range(12)]
    assert len({make_sample(name, RECIPE).tobytes() for name in names}) == len(names)


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
def test_other_names_are_files_that_are_not_there(name):
    with pytest.raises(ImageError):
        make_sample(name, RECIPE)


def test_every_kind_has_its_turn():
    assert sample_names(7) == ("photo:0", "noise:0", "half:0", "flat:0", "extreme:0", "photo:1", "noise:1")
    with pytest.raises(RequestError, match="at least one sample, not 0"):
        sample_names(0)


def test_flat_and_half_are_flat():
    flat, half = make_sample("flat:0", RECIPE), make_sample("half:0", RECIPE)
    assert (flat == flat[:, :1, :1]).all()
    # But for the edge, which resizing blurs.
    assert (half[:, :, :24] == half[:, :1, :1]).all() and (half[:, :, 40:] == half[:, :1, 63:]).all()
    assert (half[:, 0, 0] != half[:, 0, 63]).any()


def test_extremes_are_far_beyond_a_picture():
    assert set(np.unique(make_sample("extreme:0", RECIPE)).tolist()) == {-50.0, 50.0}


def test_pictures_of_a_folder(photos, tmp_path):
    photos[0].save(tmp_path / "b.jpg")
    photos[1].save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    names = image_files(tmp_path)
    assert [name.rpartition("/")[2] for name in names] == ["a.png", "b.jpg"]
    assert all(is_natural(name) for name in (*names, "photo:3", "noise:1"))
    assert not any(is_natural(name) for name in ("flat:0", "half:1", "extreme:2"))
    np.testing.assert_array_equal(make_sample(names[0], RECIPE), RECIPE.apply(photos[1])[0])
    with pytest.raises(RequestError, match="no image that can be read"):
        image_files(tmp_path / "empty" if (tmp_path / "empty").mkdir() else tmp_path / "empty")
    with pytest.raises(RequestError, match="no such folder"):
        image_files(tmp_path / "nowhere")
