"""The images that parity is measured on, each made once, with what a model makes of it left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tome_export.parity.following import Follower, Run


class Inputs:
    """Named images.

    image: name -> float32 [3, H, W], as the bundle pre-processes it.
    """

    def __init__(self, names: Sequence[str], image: Callable[[str], np.ndarray]) -> None:
        self.names = tuple(names)
        self._make = image
        self._images: dict[str, np.ndarray] = {}
        self._free: dict[tuple[int, str], Run] = {}

    def image(self, name: str) -> np.ndarray:
        """float32 [1, 3, H, W]."""
        if name not in self._images:
            self._images[name] = self._make(name)[None]
        return self._images[name]

    def free(self, name: str, follower: Follower) -> Run:
        """Outputs, similarities and labels of a model that is told nothing."""
        key = id(follower), name
        if key not in self._free:
            run = follower.run(self.image(name), {})
            keep = ("logits", "sources", "scores", "label")
            self._free[key] = {name: value for name, value in run.items() if name.rpartition(".")[2] in keep}
        return self._free[key]
