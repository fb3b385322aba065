"""Shared: photographs in a folder, a digits model trained for a moment, digits as pictures."""

import pytest

from examples.digits import data, train
from tests.export import small
from tests.once import once
from tome_export.bundle import Bundle


@pytest.fixture(scope="session")
def photo_folder(details, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "below").mkdir()
    for index, picture in enumerate(details):
        place = folder / "below" if index % 2 else folder
        picture.resize((96, 80)).save(place / f"{index:02}.png")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "broken.png").write_bytes(b"nor is this")
    return folder


@pytest.fixture(scope="session")
def digits():
    """(to train on, held out)."""
    return data.load_digits()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Three epochs: three times better than chance."""
    folder = once(tmp_path_factory, "trained", lambda folder: train.train(folder, 8, epochs=3))
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def digit_folder(digits, tmp_path_factory):
    """The held-out digits, a folder each class."""
    folder = tmp_path_factory.mktemp("digits")
    digits[1].write_pngs(folder)
    return folder


@pytest.fixture(scope="session")
def int8_bundles(photo_folder, tmp_path_factory):
    """The small DeiT in int8: form -> bundle."""
    asked = {"dynamic": {}, "static": {"calibration": photo_folder}}
    rest = {"precisions": ("fp32", "int8"), "outputs": ("logits", "sources")}

    def make(folder):
        for form, how in asked.items():
            small.export_small("small_deit", folder / form, r=8, **rest, **how)

    folder = once(tmp_path_factory, "int8", make)
    return {form: Bundle.open(folder / form) for form in asked}
