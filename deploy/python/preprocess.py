"""From an image file to the model's input, by the recipe in the manifest."""

from __future__ import annotations

import warnings

import numpy as np
from bundle import Recipe, RequestError
from PIL import Image, ImageOps

MAX_PIXELS = 178_956_970
"""Largest picture read: a bigger one may be a decompression bomb."""

# An allow-list, because some of Pillow's other readers start programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def load_image(path: str) -> Image.Image:
    """8-bit RGB, upright by its Exif orientation, transparency laid over white. Raises RequestError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise RequestError("has more pixels than is safe to read")
                return _as_rgb(ImageOps.exif_transpose(image))
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except Exception as error:  # a damaged file can make a decoder raise nearly anything
        raise RequestError(f"{path}: cannot be read as an image ({error})") from None


def preprocess(path: str, recipe: Recipe) -> np.ndarray:
    """An image file -> float32 `[3, crop, crop]`. Raises RequestError."""
    image = load_image(path)
    opencv = recipe.interpolation == "bilinear-opencv"
    width = height = crop = recipe.crop
    if recipe.resize is not None:
        short, long = min(image.size), max(image.size)
        # As their origins compute it: PaddleClas in floating point, torchvision in whole numbers.
        long_to = round(long * (recipe.resize / short)) if opencv else recipe.resize * long // short
        width, height = (recipe.resize, long_to) if image.width <= image.height else (long_to, recipe.resize)
    if width * max(height, image.height) > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise RequestError(f"{path}: {size} pixels is too long and thin to resize; crop it first")
    left, top = ((side - crop) // 2 if opencv else round((side - crop) / 2) for side in (width, height))
    box = (left, top, left + crop, top + crop)
    if opencv:
        pixels = _resize_opencv(np.asarray(image), width, height, box)
    else:
        # Rows first, whatever the shape: left to itself, Pillow 13 begins with the columns of some.
        for size in ((width, image.height), (width, height)):
            image = image.resize(size, _FILTERS[recipe.interpolation])
        pixels = np.asarray(image.crop(box))
    values = pixels.astype(np.float32) / np.float32(255)
    return ((values - np.float32(recipe.mean)) / np.float32(recipe.std)).transpose(2, 0, 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise RequestError("floating-point pixels have no agreed range; save the picture with 8 bits")
    if image.mode.startswith("I"):  # 16 bits; convert() would clip everything above 255 to white
        grey = np.asarray(image).astype(np.float64)
        scale = 257 if image.mode != "I" or grey.max() > 255 else 1
        image = Image.fromarray(np.clip(np.rint(grey / scale), 0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert("RGB")


def _resize_opencv(pixels: np.ndarray, width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part `box` of `cv2.resize(pixels, (width, height))`, bit for bit.

    Four neighbours whatever the scale, weights of 11 bits, along rows first.
    """
    left, top, right, bottom = box
    columns, column_weights = _neighbours(pixels.shape[1], width, left, right, True)
    rows, row_weights = _neighbours(pixels.shape[0], height, top, bottom, False)
    total = np.full((bottom - top, right - left, 3), 2, np.int32)
    for row, row_weight in zip(rows, row_weights, strict=True):
        line = np.zeros(total.shape, np.int32)
        for column, weight in zip(columns, column_weights, strict=True):
            line += pixels[row[:, None], column].astype(np.int32) * weight[:, None]
        total += (line >> 4) * row_weight[:, None, None] >> 16
    return (total >> 2).astype(np.uint8)


def _neighbours(size: int, target: int, begin: int, end: int, stop: bool) -> tuple[np.ndarray, np.ndarray]:
    """For target pixels `begin` to `end`, the two source pixels and their weights, both `[2, end - begin]`.

    stop: take the last pixel alone where there is none after it, as OpenCV does in rows but not in columns.
    """
    scale = 1 / (target / size)  # not size / target, which may round otherwise
    centre = ((np.arange(begin, end) + 0.5) * scale - 0.5).astype(np.float32)
    before = np.floor(centre)
    beyond = centre - before
    if stop:
        beyond[(before < 0) | (before >= size - 1)] = 0
    weights = np.rint(np.stack([1 - beyond, beyond]) * np.float32(2048)).astype(np.int32)
    return np.clip(np.stack([before, before + 1]).astype(np.int64), 0, size - 1), weights
