"""Inputs that parity is measured on: synthetic photographs and noise, each repeatable from its name.

A name such as "photo:7" is stored in the manifest, so that a bundle can be verified again on the same inputs
without the Python model.
"""

from __future__ import annotations

import numpy as np

from tome_export.errors import BundleError
from tome_export.preprocess import Preprocess

PHOTO, NOISE = "photo", "noise"


def make_sample(name: str, preprocess: Preprocess) -> np.ndarray:
    """float32 [3, H, W], normalised. name: "photo:SEED" or "noise:SEED". Raises BundleError for another."""
    kind, _, seed = name.partition(":")
    if kind not in (PHOTO, NOISE) or not seed.isdecimal():
        raise BundleError(f"the manifest names a parity sample {name!r}, which this version does not know")
    rng = np.random.default_rng([int(seed), (PHOTO, NOISE).index(kind)])
    size = preprocess.crop
    if kind == NOISE:
        return rng.standard_normal((3, size, size), dtype=np.float32)
    return preprocess.apply(_picture(rng, size))[0]


def make_batch(names: tuple[str, ...], preprocess: Preprocess) -> np.ndarray:
    """float32 [len(names), 3, H, W]."""
    return np.stack([make_sample(name, preprocess) for name in names])


def _picture(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: textures with the 1/f spectrum of photographs, and objects with hard edges."""
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
