"""Pictures small enough to stand inside an HTML file."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from tome_export.pictures.panels import view
from tome_export.preprocess import Preprocess

LIMIT = 100_000
"""Bytes of the whole data URI."""


def merged_thumbnail(
    photo: Image.Image,
    sources: np.ndarray,
    preprocess: Preprocess,
    grid: tuple[int, int],
    size: int = 320,
    limit: int = LIMIT,
) -> str:
    """The merged picture of a photograph as a PNG data URI, for `<img src="...">`.

    photo: RGB, as `load_image` reads it. sources: int [tokens], the group of each input token. grid: (rows,
    columns), see `tome_export.pictures.panels.patch_grid`. size: long side in pixels, if the limit allows.
    Raises ImageError.
    """
    return data_uri(view(photo, preprocess, grid, size).merged(sources), limit)


def data_uri(picture: Image.Image, limit: int = LIMIT) -> str:
    """A picture as a PNG data URI of at most `limit` characters.

    If need be it has fewer colours, and then is smaller. Raises ValueError if the limit is absurd.
    """
    room = (limit - len(_PREFIX)) // 4 * 3
    content = _png(picture)
    while len(content) > room:
        content = _png(picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
        if len(content) > room:
            if picture.width == picture.height == 1:
                raise ValueError(f"no picture fits in {limit} bytes")
            scale = min(0.9, (max(room, 1) / len(content)) ** 0.5)
            smaller = tuple(max(1, int(scale * side)) for side in picture.size)
            picture = picture.resize(smaller, Image.Resampling.LANCZOS)
    return _PREFIX + base64.b64encode(content).decode()


_PREFIX = "data:image/png;base64,"


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
