"""The tiny model with names for its classes, and a photograph as a JPEG."""

import io

import pytest

from tests.export import tiny

LABELS = ("café", "dog", "cat", "hen", "fox")


@pytest.fixture(scope="session")
def served_bundle(tiny_files, tmp_path_factory):
    return tiny.write_bundle(tmp_path_factory.mktemp("served") / "tiny", tiny_files, labels=LABELS)


@pytest.fixture(scope="session")
def jpegs(photos, tmp_path_factory):
    """The three photographs as JPEG files."""
    folder = tmp_path_factory.mktemp("jpegs")
    paths = [folder / f"{index}.jpg" for index in range(len(photos))]
    for photo, path in zip(photos, paths, strict=True):
        photo.save(path, quality=90)
    return paths


@pytest.fixture(scope="session")
def bomb():
    """A PNG of a few kilobytes with 64 megapixels in it."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    return file.getvalue()
