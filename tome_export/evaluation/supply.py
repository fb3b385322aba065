"""Batches of prepared pictures, in order, for a model; and the plain way to make them, without workers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.errors import ImageError
from tome_export.evaluation.worker import reason
from tome_export.preprocess import Preprocess, load_inputs


@dataclass(frozen=True)
class Batch:
    """The next pictures. `good`: positions of those that could be read, at most a batch; `bad`: position and
    reason of those in between that could not; `images`: per recipe float32 `[len(good), 3, H, W]`, valid
    until the next batch is asked for."""

    good: tuple[int, ...]
    bad: tuple[tuple[int, str], ...]
    images: tuple[np.ndarray, ...]


class Supply(ABC):
    """Batches in order; `waited`: seconds that `next` has taken so far."""

    waited = 0.0

    def next(self) -> Batch | None:
        """The next batch, or None after the last, or when `stopped` says so."""
        start = time.perf_counter()
        try:
            return self._next()
        finally:
            self.waited += time.perf_counter() - start

    @abstractmethod
    def _next(self) -> Batch | None: ...

    @abstractmethod
    def close(self) -> None:
        """End the workers. May be called twice."""

    def __enter__(self) -> Supply:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Inline(Supply):
    """No workers: each batch is prepared when it is asked for."""

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        recipes: Sequence[Preprocess],
        batch: int,
        stopped: Callable[[], bool],
    ):
        self._root, self._paths, self._recipes = root, paths, recipes
        self._batch, self._stopped, self._cursor = batch, stopped, 0

    def _next(self) -> Batch | None:
        good, bad, images = [], [], []
        while len(good) < self._batch and self._cursor < len(self._paths):
            if self._stopped():
                return None
            path = str(self._root / self._paths[self._cursor])
            try:
                images.append(load_inputs(path, self._recipes))
                good.append(self._cursor)
            except (ImageError, MemoryError) as error:
                bad.append((self._cursor, reason(path, error)))
            self._cursor += 1
        if not good and not bad:
            return None
        none = tuple(recipe.apply([]) for recipe in self._recipes)
        return Batch(tuple(good), tuple(bad), tuple(map(np.concatenate, zip(none, *images, strict=True))))

    def close(self) -> None:
        self._cursor = len(self._paths)
