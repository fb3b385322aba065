"""scikit-learn's handwritten digits: a fixed split, as model inputs or as PNG files.

1,797 real 8 x 8 pictures with values of 0 to 16, from the test set of the UCI data "Optical Recognition of
Handwritten Digits"; 450 of them are held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tome_export.preprocess import preset

IMAGE_SIZE = 32
PRESET = "vit_384"  # resized straight to the square, bilinear, mean and deviation 0.5
CLASSES = tuple("0123456789")
_HELD_OUT = 450


@dataclass(frozen=True)
class Digits:
    """pixels: uint8 [n, 8, 8], black ground. labels: int64 [n]."""

    pixels: np.ndarray
    labels: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """What the exported model takes, float32 [n, 3, 32, 32]: what its manifest says, and nothing else."""
        rgb = np.repeat(self.pixels[..., None], 3, axis=-1)
        return preset(PRESET, IMAGE_SIZE).apply(list(rgb))

    def write_pngs(self, folder: Path) -> None:
        """Write `folder`/DIGIT/NUMBER.png, 8 x 8 pixels, grey."""
        for number, (pixels, label) in enumerate(zip(self.pixels, self.labels, strict=True)):
            path = Path(folder) / CLASSES[label] / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def load_digits() -> tuple[Digits, Digits]:
    """(1,347 to train on, 450 held out), always the same, every digit as often as in the whole."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    whole = load()
    pixels = np.rint(whole.images * (255 / 16)).astype(np.uint8)
    labels = whole.target.astype(np.int64)
    indices = np.arange(len(labels))
    parts = train_test_split(indices, test_size=_HELD_OUT, random_state=0, stratify=labels)
    train, test = (Digits(pixels[part], labels[part]) for part in parts)
    return train, test
