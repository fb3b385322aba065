"""Inputs that parity is measured on: synthetic ones, each repeatable from its name, and photographs from a
folder.

photo:7      textures with the spectrum of photographs, and objects with hard edges
noise:7      white noise
half:7       two flat colours side by side: many similarities that are equal but for rounding, or exactly
flat:7       one flat colour
extreme:7    black and white pixels, fifty times beyond what a picture can hold
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tome_export.errors import ImageError, RequestError
from tome_export.preprocess import Preprocess, load_image

KINDS = ("photo", "noise", "half", "flat", "extreme")
NATURAL = ("photo", "noise")
"""Kinds on which few decisions hang on rounding; photographs from files count among them."""
_BEYOND = 50.0


def sample_names(count: int) -> tuple[str, ...]:
    """The first `count` synthetic inputs: one of each kind, then the next of each kind."""
    if count < 1:
        raise RequestError(f"parity needs at least one sample, not {count}")
    return tuple(f"{KINDS[index % len(KINDS)]}:{index // len(KINDS)}" for index in range(count))


def image_files(folder: Path) -> tuple[str, ...]:
    """Names of the pictures in a folder, for `make_sample`. Raises RequestError if there is none."""
    if not folder.is_dir():
        raise RequestError(f"{folder}: no such folder of images")
    found = []
    for path in sorted(folder.iterdir()):
        try:
            load_image(path)
        except ImageError:
            continue
        found.append(str(path))
    if not found:
        raise RequestError(f"{folder}: holds no image that can be read")
    return tuple(found)


def is_natural(name: str) -> bool:
    return name.partition(":")[0] not in KINDS or name.partition(":")[0] in NATURAL


def make_sample(name: str, preprocess: Preprocess) -> np.ndarray:
    """float32 [3, H, W], normalised. name: "KIND:SEED", or an image file. Raises RequestError, ImageError."""
    kind, _, seed = name.partition(":")
    if kind not in KINDS or not seed.isdecimal():
        return preprocess.apply(load_image(name))[0]
    rng = np.random.default_rng([int(seed), KINDS.index(kind)])
    size = preprocess.crop
    if kind == "noise":
        return rng.standard_normal((3, size, size), dtype=np.float32)
    if kind == "extreme":
        pixels = rng.integers(0, 2, (1, size, size)).astype(np.float32) * 2 - 1
        return np.repeat(pixels * np.float32(_BEYOND), 3, axis=0)
    return preprocess.apply(_PICTURES[kind](rng, size))[0]


def make_batch(names: Sequence[str], preprocess: Preprocess) -> np.ndarray:
    """float32 [len(names), 3, H, W]."""
    return np.stack([make_sample(name, preprocess) for name in names])


def _photo(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size, size, 3]."""
    picture = _texture(rng, size)
    rows, columns = np.mgrid[0:size, 0:size] / size
    for _ in range(rng.integers(3, 7)):
        y, x, height, width = rng.random(4) * (1, 1, 0.4, 0.4) + (0, 0, 0.1, 0.1)
        turn = rng.random() * np.pi
        along = (rows - y) * np.cos(turn) + (columns - x) * np.sin(turn)
        across = (columns - x) * np.cos(turn) - (rows - y) * np.sin(turn)
        inside = (along / height) ** 2 + (across / width) ** 2 < 1
        picture[inside] = 0.3 * _texture(rng, size)[inside] + 0.7 * rng.random(3)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """float [size, size, 3], mostly within 0 and 1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((3, size, size))) / frequency
    spectrum[:, 0, 0] = 0
    texture = np.fft.irfft2(spectrum, (size, size)).transpose(1, 2, 0)
    mixed = texture @ (np.eye(3) + 0.7)  # neighbouring colour channels go together
    return 0.25 * mixed / mixed.std() + rng.random(3) * 0.6 + 0.2


def _flat(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size, size, 3]."""
    return np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (size, size, 3)).copy()


def _half(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size, size, 3]."""
    picture = _flat(rng, size)
    picture[:, size // 2 :] = _flat(rng, 1)
    return picture


_PICTURES = {"photo": _photo, "flat": _flat, "half": _half}
