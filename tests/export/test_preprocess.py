"""Pixels: agreement with Paddle's own transforms, and image files of every sort."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tome_export.errors import ImageError, RequestError
from tome_export.manifest import Manifest
from tome_export.preprocess import MAX_PIXELS, PRESETS, Preprocess, load_image, preset
from tome_export.quiet import quiet
from tome_export.resize_opencv import resize_bilinear


def gradient(width, height):
    """RGB whose red grows to the right and green downwards, so that any turn shows."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), np.full_like(x, 40)], -1
    ).astype(np.uint8)


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


HALF, IMAGENET = ([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
# As the origins publish them: short side at 224 and 384 (None: resized straight to the square), filter,
# (mean, deviation).
PUBLISHED = {
    "vit": (256, 438, "bicubic", HALF),
    "vit_384": (None, None, "bilinear", HALF),
    "deit": (256, 438, "bicubic", IMAGENET),
    "mae": (256, 438, "bicubic", IMAGENET),
    "augreg": (248, 426, "bicubic", HALF),
    "augreg_384": (224, 384, "bicubic", HALF),
    "swag": (224, 384, "bicubic", IMAGENET),
    "torchvision": (256, 438, "bilinear", IMAGENET),
    "torchvision_l16": (242, 414, "bilinear", IMAGENET),
    "paddleclas": (256, 438, "opencv", HALF),
    "paddleclas_384": (224, 384, "opencv", HALF),
}


@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize("name", [name for name in PRESETS if PUBLISHED[name][2] != "opencv"])
def test_presets_agree_with_paddles_transforms(name, size, photos):
    with quiet():
        from paddle.vision import transforms as T
    recipe = preset(name, size)
    *shorts, method, (mean, std) = PUBLISHED[name]
    short = shorts[size == 384]
    resize = T.Resize((size, size), method) if short is None else T.Resize(short, method)
    reference = T.Compose([resize, T.CenterCrop(size), T.ToTensor(), T.Normalize(mean, std)])
    batch = recipe.apply(photos)
    assert batch.shape == (3, 3, size, size) and batch.dtype == np.float32 and batch.flags.c_contiguous
    for image, ours in zip(photos, batch, strict=True):
        np.testing.assert_allclose(ours, reference(image).numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize("name", ["paddleclas", "paddleclas_384"])
def test_paddleclas_presets_agree_with_opencv(name, size, photos):
    """PaddleClas's ResizeImage, CropImage and NormalizeImage, on OpenCV itself."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    *shorts, _, (mean, std) = PUBLISHED[name]
    # Beside the photographs, sizes at which rounding the long side or the offset otherwise would show.
    odd = [Image.fromarray(gradient(w, h)) for w, h in ((301, 300), (333, 515), (1000, 999), (90, 61))]
    batch = preset(name, size).apply([*photos, *odd])
    for image, ours in zip([*photos, *odd], batch, strict=True):
        ratio = shorts[size == 384] / min(image.size)
        to = tuple(round(side * ratio) for side in image.size)
        pixels = cv2.resize(np.asarray(image), to, interpolation=cv2.INTER_LINEAR)
        left, top = (to[0] - size) // 2, (to[1] - size) // 2
        pixels = pixels[top : top + size, left : left + size]
        expected = (pixels.astype("f4") / 255 - np.float32(mean)) / np.float32(std)
        np.testing.assert_allclose(ours, expected.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "weights", "name", "size"),
    [
        ("ViT_B_16", "IMAGENET1K_V1", "torchvision", 224),
        ("ViT_L_16", "IMAGENET1K_V1", "torchvision_l16", 224),
        ("ViT_B_16", "IMAGENET1K_SWAG_E2E_V1", "swag", 384),
        ("ViT_B_16", "IMAGENET1K_SWAG_LINEAR_V1", "swag", 224),
    ],
)
def test_presets_agree_with_what_torchvision_publishes(model, weights, name, size, photos):
    pytest.importorskip("torch", reason="torch is not installed")
    try:
        from torchvision.models import vision_transformer
    except Exception as error:  # a build for another torch fails with RuntimeError
        pytest.skip(f"torchvision cannot be imported: {error}")
    transforms = getattr(vision_transformer, f"{model}_Weights")[weights].transforms()
    for image, ours in zip(photos, preset(name, size).apply(photos), strict=True):
        np.testing.assert_allclose(ours, transforms(image).numpy(), atol=1e-6)


def test_opencvs_filter_is_repeated_bit_for_bit():
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    rng = np.random.default_rng(0)
    for _ in range(60):
        (height, width), to = rng.integers(1, 700, 2), tuple(map(int, rng.integers(1, 500, 2)))
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        ours = resize_bilinear(pixels, *to)
        np.testing.assert_array_equal(ours, cv2.resize(pixels, to, interpolation=cv2.INTER_LINEAR))


def test_opencvs_filter_computes_a_part_as_it_computes_the_whole(photos):
    pixels = np.asarray(photos[0])
    for width, height in ((384, 256), (1000, 700), (640, 427)):
        whole = resize_bilinear(pixels, width, height)
        for box in ((0, 0, 5, 7), (80, 16, 304, 240), (width - 9, height - 3, width, height)):
            left, top, right, bottom = box
            np.testing.assert_array_equal(
                resize_bilinear(pixels, width, height, box), whole[top:bottom, left:right]
            )


def test_opencvs_filter_by_hand():
    """Centres of the target's pixels fall a quarter of a source pixel inside; at the ends values repeat."""
    line = np.array([0, 100, 200], np.uint8)[None, :, None].repeat(3, 2)
    expected = [0, 25, 75, 125, 175, 200]
    np.testing.assert_array_equal(resize_bilinear(line, 6, 1)[0, :, 0], expected)
    np.testing.assert_array_equal(resize_bilinear(line.transpose(1, 0, 2), 1, 6)[:, 0, 0], expected)
    # Shrunk by three it takes every third pixel; a filter that smooths would mix in the neighbours.
    nine = np.arange(9, dtype=np.uint8)[None, :, None].repeat(3, 2) * 20
    np.testing.assert_array_equal(resize_bilinear(nine, 3, 1)[0, :, 0], [20, 80, 140])


def test_values_by_hand():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = (255, 51, 102)
    recipe = Preprocess(None, 2, mean=(0.5, 0.1, 0.2), std=(0.5, 0.2, 0.4))
    batch = recipe.apply(pixels)
    np.testing.assert_allclose(batch[0, :, 0, 1], [1.0, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(batch[0, :, 1, 0], [-1.0, -0.5, -0.5], atol=1e-6)


def test_one_image_many_images_and_none(photos):
    recipe = preset("vit", 64)
    single = recipe.apply(photos[0])
    np.testing.assert_array_equal(single, recipe.apply([np.asarray(photos[0])]))
    np.testing.assert_array_equal(single, recipe.apply(photos)[:1])
    stacked = np.stack([np.asarray(photos[0]), np.asarray(photos[1])])
    np.testing.assert_array_equal(recipe.apply(stacked), recipe.apply(photos[:2]))
    assert recipe.apply([]).shape == (0, 3, 64, 64)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_not_pictures(array):
    with pytest.raises(ImageError):
        preset("vit", 32).apply([array])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (31, 33), (32, 32)])
def test_small_and_thin_pictures(size):
    batch = preset("vit", 32).apply(gradient(*size))
    assert batch.shape == (1, 3, 32, 32) and np.isfinite(batch).all()


MEMORY = """
import resource, sys
from PIL import Image
from tome_export.preprocess import load_inputs, preset
recipes = [preset(name, 224) for name in ("vit", "paddleclas", "vit_384")]
load_inputs(sys.argv[1], recipes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_inputs(sys.argv[2], recipes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_panorama_does_not_blow_up_memory(tmp_path, child):
    """20,000 x 200: 16 MB as Pillow holds it, 26 MB at a short side of 256."""
    Image.fromarray(gradient(500, 375)).save(tmp_path / "usual.jpg")
    Image.fromarray(gradient(20_000, 200)).save(tmp_path / "wide.png")
    done = child(MEMORY, tmp_path / "usual.jpg", tmp_path / "wide.png")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120_000  # kB


def test_a_picture_too_thin_to_resize_is_refused_before_it_fills_memory():
    with pytest.raises(ImageError, match="too long and thin"):
        preset("vit", 224).apply(np.zeros((1, 3_000_000, 3), np.uint8))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(resize=200, crop=224),
        dict(resize=None, crop=0),
        dict(resize=8, crop=8, interpolation="nearest"),
        dict(resize=8, crop=8, std=(1.0, 0.0, 1.0)),
        dict(resize=8, crop=8, mean=(0.5, 0.5)),
        dict(resize=8, crop=8, mean=(float("nan"), 0.0, 0.0)),
        dict(resize=8, crop=8, layout="NHWC"),
        dict(resize=8, crop=8, color="BGR"),
    ],
)
def test_contradictions_are_refused(wrong):
    with pytest.raises(RequestError):
        Preprocess(**wrong)


def test_the_recipe_comes_back_from_a_manifest(tiny_bundle):
    for name in PRESETS:
        written = replace(tiny_bundle.manifest, preprocess=preset(name, 64))
        assert Manifest.from_json(written.to_json()).preprocess == preset(name, 64)


def test_unknown_preset():
    with pytest.raises(RequestError, match="no preprocessing preset 'clip'; choose one of vit, vit_384"):
        preset("clip", 224)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff", "ppm"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    pixels = gradient(20, 10)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(np.asarray(load_image(path)), pixels)


def test_a_jpeg_whatever_its_name(tmp_path, photos):
    path = tmp_path / "no suffix"
    photos[0].save(path, "JPEG", quality=95)
    image = load_image(str(path))
    assert image.mode == "RGB" and image.size == photos[0].size
    assert np.abs(np.asarray(image, int) - np.asarray(photos[0], int)).mean() < 4


# EXIF 2.3, tag 0x0112: what a viewer does to the stored rows to show the picture upright.
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation(tmp_path, orientation, upright):
    pixels = gradient(20, 10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(load_image(path)), upright(pixels))


def test_damaged_exif_does_not_lose_the_picture(tmp_path, photos, recwarn):
    path = tmp_path / "odd.jpg"
    photos[0].save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert load_image(path).size == photos[0].size
    assert not recwarn.list


def test_modes_become_rgb(tmp_path):
    grey = gradient(16, 16)[..., 0]
    as_rgb = np.repeat(grey[..., None], 3, -1)
    cases = {
        "grey.png": (Image.fromarray(grey), as_rgb),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "deep.tiff": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "int32.tiff": (Image.fromarray(grey.astype(np.int32)), as_rgb),
        "bits.png": (Image.fromarray(grey).point(lambda v: 255 * (v > 99)).convert("1"), 255 * (as_rgb > 99)),
        "palette.png": (Image.fromarray(as_rgb).convert("P", palette=Image.Palette.ADAPTIVE), as_rgb),
        "cmyk.tiff": (Image.fromarray(as_rgb).convert("CMYK"), as_rgb),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        loaded = load_image(tmp_path / name)
        assert loaded.mode == "RGB", name
        np.testing.assert_allclose(np.asarray(loaded, int), expected, atol=1, err_msg=name)


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.zeros((2, 4, 4), np.uint8)
    rgba[..., :3] = (200, 0, 100)
    rgba[..., 3] = (255, 0, 128, 255)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    loaded = np.asarray(load_image(tmp_path / "rgba.png"), int)
    np.testing.assert_array_equal(loaded[0, 0], (200, 0, 100))
    np.testing.assert_array_equal(loaded[0, 1], (255, 255, 255))
    # 128/255 of the colour and the rest white
    np.testing.assert_allclose(loaded[0, 2], (227, 127, 177), atol=1)

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.gif", transparency=1)
    loaded = np.asarray(load_image(tmp_path / "palette.gif"))
    np.testing.assert_array_equal(loaded[0], [(10, 20, 30), (255, 255, 255)])

    Image.new("RGB", (1, 1), (9, 9, 9)).save(tmp_path / "key.png", transparency=(9, 9, 9))
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "key.png"))[0, 0], (255, 255, 255))


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "film.gif"))[0, 0], (255, 0, 0))


def bad_files(folder):
    jpeg = io.BytesIO()
    Image.fromarray(gradient(64, 64)).save(jpeg, "JPEG")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    side = int(MAX_PIXELS**0.5) + 1
    contents = {
        "empty.png": b"",
        "text.jpg": b"hello",
        "cut.jpg": jpeg.getvalue()[:400],
        "eps.png": eps,
        "hollow.png": png_header(8, 8),
        "bomb.png": png_header(side, side),
        "huge.png": png_header(2**31 - 1, 2**31 - 1),
        "wide.png": png_header(2**31 - 1, 1),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tiff")
    return [*contents, "float.tiff"]


def test_unreadable_files_give_one_line_with_the_path(tmp_path):
    for name in [*bad_files(tmp_path), "absent.png", ".", "nul\0byte", "x" * 300]:
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(str(tmp_path)) and "\n" not in message, name
        assert len(message) < 300 + len(name), name
    with pytest.raises(ImageError, match="absent.png: no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="eps.png: not an image in a known format"):
        load_image(tmp_path / "eps.png")


def test_a_camera_sized_picture_below_the_limit_is_read_without_a_warning(tmp_path, recwarn):
    Image.new("1", (12_000, 9_000)).save(tmp_path / "large.png")  # 108 megapixels: Pillow alone would warn
    assert load_image(tmp_path / "large.png").size == (12_000, 9_000)
    assert not recwarn.list
