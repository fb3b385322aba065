"""The pictures that schedules are judged on: some for the search, the others held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.errors import ImageError, RequestError
from tome_export.evaluation.dataset import read_dataset
from tome_export.precision.pictures import picture_files, spread
from tome_export.preprocess import Preprocess, load_inputs

FOLDERS = "folders"
"""In place of a list of labels: the folder has a folder for each class."""
_FEWEST = 16


@dataclass(frozen=True)
class Pictures:
    """images: float32 [n, 3, H, W], normalised. labels: int64 [n], or None. unreadable: files passed over."""

    images: np.ndarray
    labels: np.ndarray | None
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def part(self, indices: np.ndarray) -> Pictures:
        return Pictures(self.images[indices], None if self.labels is None else self.labels[indices])

    def split(self, seed: int) -> tuple[Pictures, Pictures]:
        """(to search on, held out): halves, drawn by the seed."""
        order = np.random.default_rng(seed).permutation(len(self))
        half = (len(self) + 1) // 2
        return self.part(np.sort(order[:half])), self.part(np.sort(order[half:]))


def find_pictures(
    folder: Path, labels: str | None, classes: int, limit: int
) -> tuple[list[Path], list[int] | None]:
    """Files, and their classes if `labels` tells them: a list of `path label` lines, or "folders".

    At most `limit`, spread evenly over all. Raises RequestError.
    """
    if limit < _FEWEST:
        raise RequestError(f"--limit should be at least {_FEWEST} pictures, not {limit}")
    if labels is None:
        return list(map(Path, spread(picture_files(folder), limit))), None
    data = read_dataset(folder, None if labels == FOLDERS else labels, None, classes).limited(limit)
    return [data.root / each.path for each in data.samples], [each.label for each in data.samples]


def read_pictures(files: list[Path], labels: list[int] | None, recipe: Preprocess) -> Pictures:
    """Raises RequestError if too few can be read."""
    images, kept, problem = [], [], None
    for index, file in enumerate(files):
        try:
            images += load_inputs(file, [recipe])
            kept.append(index)
        except ImageError as error:
            problem = problem or error
    if len(kept) < _FEWEST:
        first = f"; the first that cannot: {problem}" if problem else ""
        raise RequestError(
            f"{len(kept)} of {len(files)} pictures can be read, and tune needs {_FEWEST} at least{first}"
        )
    chosen = None if labels is None else np.array(labels, np.int64)[kept]
    return Pictures(np.concatenate(images), chosen, len(files) - len(kept))
