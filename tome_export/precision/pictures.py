"""The pictures that a reduced model is calibrated and judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.errors import ImageError, RequestError
from tome_export.evaluation.dataset import IMAGE_SUFFIXES
from tome_export.parity.samples import make_sample
from tome_export.preprocess import Preprocess

CALIBRATE, JUDGE = 128, 500
"""At most this many pictures; evenly spread where a folder holds more."""
_ENOUGH = 100  # pictures that calibration has not seen: then it is judged on those only
_SAMPLES = 50


@dataclass(frozen=True)
class Pictures:
    """Names for `make_sample`. source: "pictures" from files, or "samples", synthetic ones."""

    names: tuple[str, ...]
    source: str

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def picture_files(folder: Path) -> tuple[str, ...]:
    """Picture files in a folder and the folders below, in order of their names, by their endings.

    Raises RequestError if there is no such folder or nothing in it.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder}: no such folder of pictures")
    found = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not found:
        raise RequestError(f"{folder}: holds no picture")
    return tuple(map(str, found))


def choose(calibration: Path | None, images: Path | None) -> tuple[Pictures | None, Pictures]:
    """What to calibrate on, if on anything, and what to judge on.

    Judged is on `images` if that is given. Otherwise on those in `calibration` that were not used for it, if
    they are enough, else on all of them. Without either, on synthetic photographs. Raises RequestError.
    """
    files = picture_files(calibration) if calibration is not None else ()
    seen = spread(files, CALIBRATE)
    if images is not None:
        unseen: Sequence[str] = picture_files(images)
    else:
        used = set(seen)
        unseen = [name for name in files if name not in used]
        unseen = unseen if len(unseen) >= _ENOUGH else files
    if unseen:
        judged = Pictures(spread(unseen, JUDGE), "pictures")
    else:
        judged = Pictures(tuple(f"photo:{seed}" for seed in range(_SAMPLES)), "samples")
    return (Pictures(seen, "pictures") if files else None), judged


def spread(names: Sequence[str], most: int) -> tuple[str, ...]:
    """At most so many of them, evenly spread: the first and every k-th."""
    if len(names) <= most:
        return tuple(names)
    return tuple(names[index * len(names) // most] for index in range(most))


def prepare(pictures: Pictures, recipe: Preprocess) -> Iterator[np.ndarray]:
    """float32 [1, 3, H, W] of each picture that can be read. Raises RequestError if none can."""
    nothing = None
    for name in pictures:
        try:
            yield make_sample(name, recipe)[None]
            nothing = False
        except ImageError as error:
            nothing = error if nothing is None else nothing
    if nothing is not False:
        raise RequestError(f"none of {len(pictures)} pictures can be read; the first: {nothing}")
