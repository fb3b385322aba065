"""A folder of class folders of images in batches: as the exported model will see them, or random parts."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

from tome_export.errors import RequestError
from tome_export.preprocess import Preprocess, load_image

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
SMALLEST_PART = 0.35  # of a picture's area, in training
WIDEST = 4 / 3  # width to height of a part, and the other way round


def split(folder: Path, held_out: float, seed: int) -> tuple[list[str], list, list]:
    """Class names, and (file, class) of the images to train and to validate on; every class is in both."""
    if not folder.is_dir():
        raise RequestError(f"{folder}: no such folder; --data is a folder with a folder for each class")
    classes = {
        each.name: sorted(file for file in each.rglob("*") if file.suffix.lower() in IMAGES)
        for each in sorted(folder.iterdir())
        if each.is_dir()
    }
    few = [name for name, files in classes.items() if len(files) < 2]
    if few or len(classes) < 2:
        what = f"{few[0]} has fewer than two images" if few else "fewer than two class folders"
        raise RequestError(f"{folder}: {what}; every class needs a folder of at least two")
    rng, training, validation = random.Random(seed), [], []
    for number, files in enumerate(classes.values()):
        rng.shuffle(files)
        kept_back = min(max(1, round(held_out * len(files))), len(files) - 1)
        validation += [(file, number) for file in files[:kept_back]]
        training += [(file, number) for file in files[kept_back:]]
    return list(classes), training, validation


class Pictures:
    """(float32 [3, H, W], class) of each file: as the exported model will see it, or a random part of it.

    seed: of the random parts, which are then the same in any process; None is for validation.
    """

    def __init__(self, files: list, recipe: Preprocess, seed: tuple[int, ...] | None = None) -> None:
        self.files, self.recipe, self.seed = files, recipe, seed
        self.whole = Preprocess(None, recipe.crop, mean=recipe.mean, std=recipe.std)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        path, target = self.files[index]
        image = load_image(path)
        if self.seed is None:
            return self.recipe.apply(image)[0], np.int64(target)
        part = random_part(image, self.recipe.crop, np.random.default_rng([*self.seed, index]))
        return self.whole.apply(part)[0], np.int64(target)


def random_part(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A part of random area, shape and place, as a square of `size` pixels; mirrored half of the time."""
    area = rng.uniform(SMALLEST_PART, 1) * image.width * image.height
    shape = math.exp(rng.uniform(-math.log(WIDEST), math.log(WIDEST)))
    width, height = min(image.width, math.sqrt(area * shape)), min(image.height, math.sqrt(area / shape))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    part = image.resize((size, size), Image.Resampling.BICUBIC, box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def batches(pictures: Pictures, size: int, workers: int) -> paddle.io.DataLoader:
    return paddle.io.DataLoader(pictures, batch_size=size, num_workers=workers)
