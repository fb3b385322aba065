"""One picture: a photograph at the size it is shown, and what merged drawn over the part the model saw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tome_core.visualize import draw_groups
from tome_export.errors import BundleError, ImageError
from tome_export.manifest import Manifest
from tome_export.preprocess import Preprocess

_TOKEN_PIXELS = 12  # a token smaller than this cannot be told from its outline: the photograph is enlarged
_LONGEST = 20_000  # pixels


@dataclass(frozen=True)
class View:
    """A photograph as it is shown, with the part the model saw.

    photo: RGB. box: left, top, right, bottom in its pixels. grid: (rows, columns) of patch tokens.
    """

    photo: Image.Image
    box: tuple[float, float, float, float]
    grid: tuple[int, int]

    def merged(self, sources: np.ndarray) -> Image.Image:
        """sources: int [tokens], the group of each input token."""
        return Image.fromarray(draw_groups(np.asarray(self.photo), sources, self.grid, self.box))


def view(photo: Image.Image, preprocess: Preprocess, grid: tuple[int, int], size: int | None = None) -> View:
    """Prepare a photograph for drawing.

    photo: RGB, as `load_image` reads it. size: its long side as shown, in pixels; None leaves it as it is.
    Either way it is enlarged by a whole factor if a token would have less than 12 pixels. Raises ImageError.
    """
    width, height = photo.size
    scale = 1.0 if size is None else size / max(width, height)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    left, top, right, bottom = preprocess.seen(*shown)
    token = min((right - left) / grid[1], (bottom - top) / grid[0])
    enlarge = math.ceil(_TOKEN_PIXELS / token)
    shown = shown[0] * enlarge, shown[1] * enlarge
    if max(shown) > _LONGEST:
        raise ImageError(
            f"{width} x {height} pixels would be drawn at {shown[0]} x {shown[1]}; crop it or choose a --size"
        )
    if shown != photo.size:
        smaller = shown[0] < width
        photo = photo.resize(shown, Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC)
    return View(photo, preprocess.seen(*shown), grid)


def patch_grid(manifest: Manifest) -> tuple[int, int]:
    """(rows, columns) of a bundle's patch tokens. Raises BundleError if its numbers contradict each other."""
    side = manifest.model.image_size // manifest.model.patch_size
    special = manifest.tome.tokens[0] - side * side
    if not 0 <= special <= 2:
        raise BundleError(
            f"the manifest counts {manifest.tome.tokens[0]} tokens, which are not {side} x {side} patches "
            "and at most two more; export the bundle again"
        )
    return side, side
