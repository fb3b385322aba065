"""Bytes of picture files -> the model's input, within limits."""

from __future__ import annotations

import io

import numpy as np

from tome_export.errors import ImageError
from tome_export.preprocess import Preprocess, TooLargeError, decode_image
from tome_export.serving.refusal import Refusal, malformed


def prepare(content: bytes, recipe: Preprocess, max_pixels: int, where: str = "the picture") -> np.ndarray:
    """float32 `[1, 3, crop, crop]`. Raises Refusal: 413 for too many pixels, told from the header before any
    is decoded; 400 for what is no picture, or is damaged."""
    try:
        return recipe.apply(decode_image(io.BytesIO(content), max_pixels))
    except TooLargeError as error:
        raise Refusal(413, f"{where}: {error}") from None
    except ImageError as error:
        raise malformed(f"{where}: {error}") from None
