"""Odd picture files, each through `eval` and through `predict`: the same answer, or the same refusal.

What they should look like is known from how they are made; the model is run on that directly.
"""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from tests.export.test_preprocess import png_header
from tome_export.errors import ImageError
from tome_export.evaluate import Contender, evaluate
from tome_export.predict import predict_files


@dataclass
class Odd:
    """A file, and the picture it should be taken for; `loss`: of the file format, in probability."""

    data: bytes
    meant: Image.Image
    loss: float = 1e-4


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_16_bits(pixels):
    """A 16-bit RGB PNG, which Pillow reads and does not write. pixels: uint16 [h, w, 3]."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def readable(photo, second):
    grey, small = photo.convert("L"), photo.resize((96, 64))
    deep = np.asarray(small, np.uint16) * 257
    palette = small.quantize(64)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned right
    mask = Image.new("L", small.size, 255)
    mask.paste(0, (0, 0, 48, 64))
    clear = small.copy()
    clear.putalpha(mask)
    on_white = small.copy()
    on_white.paste("white", (0, 0, 48, 64))
    holed = small.quantize(64)
    holed.paste(63, (0, 0, 48, 64))
    holed_meant = holed.convert("RGB")
    holed_meant.paste("white", mask=Image.fromarray(np.uint8(np.asarray(holed) == 63) * 255))
    wide = Image.fromarray(np.tile(np.asarray(small.resize((200, 200))), (1, 100, 1)))
    film = [small, second.resize(small.size), small.rotate(180)]
    return {
        "grey.png": Odd(encoded(grey, "PNG"), Image.merge("RGB", [grey] * 3)),
        "grey.jpg": Odd(encoded(grey, "JPEG", quality=98), Image.merge("RGB", [grey] * 3), 0.05),
        "cmyk.jpg": Odd(encoded(photo.convert("CMYK"), "JPEG", quality=98), photo, 0.05),
        "progressive.jpg": Odd(encoded(photo, "JPEG", quality=98, progressive=True), photo, 0.05),
        "deep-grey.png": Odd(
            encoded(Image.fromarray(np.asarray(grey, np.uint16) * 257), "PNG"), Image.merge("RGB", [grey] * 3)
        ),
        "deep.png": Odd(png_of_16_bits(deep), small),
        "palette.png": Odd(encoded(palette, "PNG"), palette.convert("RGB")),
        "palette-clear.png": Odd(encoded(holed, "PNG", transparency=63), holed_meant),
        "clear.png": Odd(encoded(clear, "PNG"), on_white),
        "clear.webp": Odd(encoded(clear, "WEBP", lossless=True, exact=True), on_white),
        "odd-exif.jpg": Odd(
            encoded(photo, "JPEG", quality=98, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), photo, 0.05
        ),
        "turned.png": Odd(encoded(small, "PNG", exif=turned), small.transpose(Image.Transpose.ROTATE_270)),
        "turned.jpg": Odd(
            encoded(photo, "JPEG", quality=98, exif=turned), photo.transpose(Image.Transpose.ROTATE_270), 0.05
        ),
        "film.gif": Odd(
            encoded(palette, "GIF", save_all=True, append_images=film[1:]), palette.convert("RGB")
        ),
        "film.webp": Odd(
            encoded(small, "WEBP", save_all=True, append_images=film[1:], lossless=True, exact=True), small
        ),
        "film.png": Odd(encoded(small, "PNG", save_all=True, append_images=film[1:]), small),
        "dot.png": Odd(encoded(small.crop((5, 5, 6, 6)), "PNG"), small.crop((5, 5, 6, 6))),
        "line.png": Odd(encoded(small.resize((1, 900)), "PNG"), small.resize((1, 900))),
        "wide.png": Odd(encoded(wide, "PNG"), wide),
        "png named.jpg": Odd(encoded(small, "PNG"), small),
    }


def unreadable(photo):
    jpeg = encoded(photo, "JPEG")
    scan = jpeg.index(b"\xff\xda")
    return {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"hello, I am no picture", "not an image in a known format"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "cannot be read as an image (image file is truncated"),
        "headless.jpg": (jpeg[100:], "not an image in a known format"),
        "no-pixels.jpg": (jpeg[:scan], "cannot be read as an image"),
        "cut.png": (encoded(photo, "PNG")[:5000], "cannot be read as an image"),
        "float.tiff": (
            encoded(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"),
            "floating-point pixels have no agreed range",
        ),
        "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "not an image in a known"),
        "bomb.png": (png_header(20_000, 20_000), "400000000 pixels"),
        "thread.png": (encoded(Image.new("RGB", (3_000_000, 1)), "PNG"), "too long and thin"),
    }


@pytest.fixture(scope="module")
def odd(tmp_path_factory, photos):
    """(folder with one class folder of them all, readable ones, unreadable ones)"""
    folder = tmp_path_factory.mktemp("odd")
    good, bad = readable(photos[0], photos[1]), unreadable(photos[0])
    (folder / "0").mkdir()
    for name, each in good.items():
        (folder / "0" / name).write_bytes(each.data)
    for name, (data, _) in bad.items():
        (folder / "0" / name).write_bytes(data)
    return folder, good, bad


def test_eval_takes_them_for_what_they_are(odd, bundle, direct):
    folder, good, bad = odd
    (folder / "0" / "README.txt").write_text("about them")
    (folder / "0" / "no-ending").write_bytes(good["grey.jpg"].data)
    (folder / "0" / ".hidden.jpg").write_bytes(b"")
    result = evaluate(Contender.open(bundle, "onnx"), folder, batch=4, workers=2)
    assert (result.evaluated, result.ignored_files) == (len(good), 2)
    assert {path: reason for path, reason in result.unreadable}.keys() == {f"0/{name}" for name in bad}
    for path, reason in result.unreadable:
        assert bad[path.removeprefix("0/")][1] in reason and str(folder) not in reason
    answers = result.outcomes.answers[0]
    for i, sample in enumerate(result.dataset.samples):
        name = sample.path.removeprefix("0/")
        if name not in good:
            assert not result.outcomes.read[i] and answers.classes[i, 0] == -1
            continue
        logits = direct(bundle, [good[name].meant])[0].astype(np.float64)
        probability = np.exp(logits) / np.exp(logits).sum()
        found = answers.probabilities[i]
        np.testing.assert_allclose(found, probability[answers.classes[i]], atol=good[name].loss, err_msg=name)
        if good[name].loss < 1e-3:
            assert answers.classes[i].tolist() == np.argsort(-logits)[:5].tolist(), name


def test_predict_gives_the_same_answers(odd, bundle):
    folder, good, _ = odd
    result = evaluate(Contender.open(bundle, "onnx"), folder, batch=4, workers=1)
    answers = result.outcomes.answers[0]
    files = [folder / "0" / name for name in good]
    _, predicted = predict_files(bundle.path, files, "onnx")
    for name, entries in zip(good, predicted, strict=True):
        (i,) = (i for i, sample in enumerate(result.dataset.samples) if sample.path == f"0/{name}")
        assert [entry.index for entry in entries] == answers.classes[i].tolist(), name
        np.testing.assert_allclose(
            [entry.probability for entry in entries], answers.probabilities[i], atol=1e-5
        )


def test_predict_refuses_the_same_files_for_the_same_reasons(odd, bundle):
    folder, _, bad = odd
    for name, (_, reason) in bad.items():
        with pytest.raises(ImageError) as caught:
            predict_files(bundle.path, [folder / "0" / name], "onnx")
        assert str(caught.value).startswith(f"{folder / '0' / name}: ") and reason in str(caught.value), name
