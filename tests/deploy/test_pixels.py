"""deploy/ prepares a picture as tome_export does: every recipe, odd sizes, every kind of JPEG and PNG."""

import numpy as np
import pytest
from PIL import Image

from tests.deploy.conftest import PROGRAMS
from tests.export.small import SIZE
from tome_export.preprocess import load_image, preset

RECIPES = ("vit", "vit_384", "deit", "augreg_384", "torchvision", "paddleclas")
EXACT = 0
ALLOWED = 1e-3  # of the model's input


def save(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


@pytest.fixture(scope="module")
def pictures(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    photo = Image.open(photos[0])
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (3, 200), (200, 3), (33, 47), (SIZE, SIZE), (301, 299), (73, SIZE)]
    found = [save(folder, f"{w}x{h}.png", photo.resize((w, h))) for w, h in sizes]
    found += [save(folder, f"{w}x{h}.jpg", photo.resize((w, h))) for w, h in sizes]
    small = photo.resize((70, 51))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found += [save(folder, f"turned{orientation}.{ext}", small, exif=exif) for ext in ("jpg", "png")]
    found += [save(folder, f"{mode}.jpg", photo.convert(mode)) for mode in ("L", "CMYK")]
    found += [save(folder, f"subsampled{kind}.jpg", photo, subsampling=kind) for kind in range(3)]
    found.append(save(folder, "progressive.jpg", photo, progressive=True, quality=40))
    found += [save(folder, f"{mode}.png", photo.convert(mode)) for mode in ("1", "L", "P")]
    found.append(save(folder, "hole.png", photo.convert("P"), transparency=3))
    # Every grey with every opacity.
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    found.append(save(folder, "RGBA.png", Image.fromarray(np.dstack([ramp, ramp, 255 - ramp, ramp.T]))))
    found.append(save(folder, "LA.png", Image.fromarray(np.dstack([ramp, ramp.T]))))
    found.append(
        save(folder, "16bit.png", Image.fromarray(rng.integers(0, 2**16, (80, 90), dtype=np.uint16)))
    )
    return [*photos, *found]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("program", [each for each in PROGRAMS if each[1] == "onnx"], ids="-".join)
def test_the_model_gets_the_same_input(program, recipe, run, variant, pictures, tmp_path):
    wanted = preset(recipe, SIZE)
    folder = variant(lambda manifest: manifest.update(preprocess=dict(vars(wanted))))
    done = run(program, folder, *pictures, "--batch", 8, "--dump-input", tmp_path / "input.npy")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "input.npy")
    assert found.shape == (len(pictures), 3, SIZE, SIZE) and found.dtype == np.float32
    for path, image in zip(pictures, found, strict=True):
        difference = np.abs(image - wanted.apply(load_image(path))[0]).max()
        # Two builds of libjpeg may differ, though none was seen to; all else is arithmetic on whole numbers.
        assert difference <= (ALLOWED if path.suffix == ".jpg" else EXACT), path.name
