"""From an image file to the float32 tensor that the exported graph takes.

The recipe is data (`Preprocess`), stored in the bundle's manifest, so that a server, a benchmark and a C++
program all feed a model the pixels it was trained on. Presets are the recipes of the published checkpoints.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from tome_export.errors import ImageError, RequestError, TooLargeError
from tome_export.resize_opencv import resize_bilinear

MAX_PIXELS = 178_956_970
"""Largest picture read, in pixels (Pillow's own hard limit): a bigger one may be a decompression bomb."""

# An allow-list, because some of Pillow's other readers start programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF")
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_OPENCV = "bilinear-opencv"
INTERPOLATIONS = (*_FILTERS, _OPENCV)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# name: (short side as a fraction of the crop, or None to resize straight to the crop; filter; (mean, std)).
_PRESETS = {
    "vit": ((256, 224), "bicubic", _HALF),
    "vit_384": (None, "bilinear", _HALF),
    "deit": ((256, 224), "bicubic", _IMAGENET),
    "augreg": ((10, 9), "bicubic", _HALF),
    "augreg_384": ((1, 1), "bicubic", _HALF),
    "mae": ((256, 224), "bicubic", _IMAGENET),
    "swag": ((1, 1), "bicubic", _IMAGENET),
    "torchvision": ((256, 224), "bilinear", _IMAGENET),
    "torchvision_l16": ((242, 224), "bilinear", _IMAGENET),
    "paddleclas": ((256, 224), _OPENCV, _HALF),
    "paddleclas_384": ((1, 1), _OPENCV, _HALF),
}
PRESETS = tuple(_PRESETS)


@dataclass(frozen=True)
class Preprocess:
    """How pixels become a tensor: resize, centre crop, `(value / 255 - mean) / std`.

    resize: length of the short side in pixels, aspect kept; None resizes straight to `crop` x `crop`.
    crop: side of the square the model sees, in pixels.
    interpolation: "bicubic" and "bilinear" are Pillow's filters (which smooth when they shrink), with
    torchvision's rounding: the long side down, half a pixel of the crop's offset to the even side.
    "bilinear-opencv" is `cv2.INTER_LINEAR` (which does not), with PaddleClas's rounding: the long side to the
    nearest pixel, the offset down.
    Raises RequestError for values that contradict one another.
    """

    resize: int | None
    crop: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = _HALF[0]
    std: tuple[float, float, float] = _HALF[1]
    layout: str = "NCHW"
    color: str = "RGB"

    def __post_init__(self) -> None:
        if self.crop < 1 or (self.resize is not None and self.resize < self.crop):
            raise RequestError(f"a crop of {self.crop} pixels does not fit a short side of {self.resize}")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise RequestError(f"interpolation {self.interpolation!r} is not one of {known}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise RequestError("mean and std each need three numbers, for R, G and B")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise RequestError("mean and std must be finite, and std above zero")
        if (self.layout, self.color) != ("NCHW", "RGB"):
            raise RequestError(f"layout {self.layout} with color {self.color} is not NCHW with RGB")

    def apply(self, images: Sequence[Image.Image | np.ndarray] | Image.Image | np.ndarray) -> np.ndarray:
        """Images -> float32 `[n, 3, crop, crop]`, C-contiguous.

        images: PIL images or uint8 `[H, W, 3]` RGB arrays, one or a sequence. Raises ImageError.
        """
        if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3):
            images = [images]
        batch = np.empty((len(images), 3, self.crop, self.crop), np.float32)
        # A table of the 256 values: the same numbers as computing each pixel's, in a third of the time.
        values = np.arange(256, dtype=np.float32) / np.float32(255)
        tables = [(values - mean) / std for mean, std in zip(*np.float32((self.mean, self.std)), strict=True)]
        for planes, image in zip(batch, images, strict=True):
            bands = self._square(_as_rgb(image)).split()
            for plane, table, band in zip(planes, tables, bands, strict=True):
                np.take(table, np.asarray(band), out=plane, mode="clip")
        return batch

    def placement(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """For a picture of this size: (width, height) after the resize, and (left, top) of the crop in that.

        Raises ImageError for one too long and thin to resize.
        """
        opencv = self.interpolation == _OPENCV
        size = (self.crop, self.crop)
        if self.resize is not None:
            short, long = min(width, height), max(width, height)
            # Both as their origins compute them, in floating point or in integers.
            long_to = round(long * (self.resize / short)) if opencv else self.resize * long // short
            size = (self.resize, long_to) if width <= height else (long_to, self.resize)
        if size[0] * max(size[1], height) > MAX_PIXELS:
            raise ImageError(
                f"an image of {width} x {height} pixels is too long and thin to "
                f"resize to {size[0]} x {size[1]}; crop it first"
            )
        excess = size[0] - self.crop, size[1] - self.crop
        left, top = (each // 2 if opencv else round(each / 2) for each in excess)
        return size, (left, top)

    def seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a picture of this size that the model sees: left, top, right, bottom in its own pixels.

        Raises ImageError as `placement` does.
        """
        (wide, high), (left, top) = self.placement(width, height)
        across, down = width / wide, height / high
        return left * across, top * down, (left + self.crop) * across, (top + self.crop) * down

    def _square(self, image: Image.Image) -> Image.Image:
        """Resize and centre crop."""
        size, (left, top) = self.placement(*image.size)
        return self._scale(image, size, (left, top, left + self.crop, top + self.crop))

    def _scale(
        self, image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
    ) -> Image.Image:
        """Resize to `size`, then crop to `box`."""
        if self.interpolation == _OPENCV:
            return Image.fromarray(resize_bilinear(np.asarray(image), *size, box))
        # Along rows first, whatever the shape: left to itself, Pillow 13 begins with the columns of some, and
        # what it rounds in between makes pixels differ by one from what models were trained on.
        for step in ((size[0], image.height), size):
            if step != image.size:
                image = image.resize(step, _FILTERS[self.interpolation])
        return image.crop(box)


def preset(name: str, image_size: int) -> Preprocess:
    """The recipe of a family of published checkpoints, for square inputs of `image_size` pixels.

    Sources: PASSL configs ("vit", "vit_384"), DeiT and MAE evaluation code ("deit", "mae"; MAE does as "swag"
    above 224 pixels), timm's AugReg defaults ("augreg", above 224 pixels "augreg_384"), SWAG ("swag"),
    torchvision's ImageNet weights ("torchvision", ViT-L/16 "torchvision_l16"), PaddleClas configs
    ("paddleclas", "paddleclas_384"). The short side is rounded down, as they do. Raises RequestError.
    """
    if name not in _PRESETS:
        raise RequestError(f"no preprocessing preset {name!r}; choose one of {', '.join(PRESETS)}")
    ratio, interpolation, (mean, std) = _PRESETS[name]
    resize = None if ratio is None else image_size * ratio[0] // ratio[1]
    return Preprocess(resize, image_size, interpolation, mean, std)


def load_image(path: str | Path) -> Image.Image:
    """Read an image file as 8-bit RGB, upright (EXIF orientation applied), first frame if animated.

    Transparency is laid over white: what a transparent pixel hides was never meant to be seen, and most such
    pictures are drawn for a white page. 16-bit greys are scaled to 8 bits. Colour profiles are ignored, as in
    the training pipelines. Raises ImageError, one line, for anything that cannot be read.
    """
    try:
        return decode_image(Path(path))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def decode_image(source: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `load_image`, also from an open file such as `io.BytesIO`. Raises ImageError that names no file,
    TooLargeError above `max_pixels` (at most MAX_PIXELS), before a pixel is decoded."""
    try:
        return _decode(source, min(max_pixels, MAX_PIXELS))
    except Image.UnidentifiedImageError:
        raise ImageError(f"not an image in a known format ({', '.join(_readable())})") from None
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # says how many
        raise TooLargeError(f"cannot be read as an image ({error})") from None
    except Exception as error:  # a damaged file can make a decoder raise nearly anything
        reason = str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
        raise ImageError(f"cannot be read as an image ({reason})") from None


def load_inputs(path: str | Path, recipes: Sequence[Preprocess]) -> list[np.ndarray]:
    """Read an image file once and prepare it by each recipe: float32 `[1, 3, crop, crop]` each.

    Raises ImageError, one line that names the file.
    """
    image = load_image(path)
    try:
        return [recipe.apply(image) for recipe in recipes]
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _decode(source: Path | BinaryIO, max_pixels: int) -> Image.Image:
    if isinstance(source, Path):
        if not source.is_file():
            raise ImageError("is not a file" if source.exists() else "no such file")
        empty = source.stat().st_size == 0
    else:
        empty = source.seek(0, os.SEEK_END) == 0
        source.seek(0)
    if empty:
        raise ImageError("is empty")
    with warnings.catch_warnings():
        # Pillow warns from half its limit on (the limit itself still raises) and of odd metadata.
        warnings.simplefilter("ignore")
        with Image.open(source, formats=_readable()) as image:
            if image.width * image.height > max_pixels:
                what = "is safe to read" if max_pixels == MAX_PIXELS else f"the {max_pixels:,} allowed"
                raise TooLargeError(f"{image.width} x {image.height} pixels is more than {what}")
            image.load()
            try:
                upright = ImageOps.exif_transpose(image)
            except Exception:  # damaged metadata around sound pixels
                upright = image.copy()
            return _as_rgb(upright)


def _readable() -> tuple[str, ...]:
    Image.init()  # AVIF and a few others depend on how Pillow was built
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _as_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    """Any image -> 8-bit RGB."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(
                f"an array of {image.dtype} {list(image.shape)} is not a picture; "
                "pass uint8 [height, width, 3] in RGB order"
            )
        image = Image.fromarray(image)
    if min(image.size) < 1:
        raise ImageError("an image without pixels cannot be used")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError("floating-point pixels have no agreed range; save the picture with 8 or 16 bits")
    if image.mode.startswith("I"):  # convert() would clip everything above 255 to white
        grey = np.asarray(image).astype(np.float64)
        scale = 257 if image.mode != "I" or grey.max() > 255 else 1
        image = Image.fromarray(np.clip(np.rint(grey / scale), 0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")
