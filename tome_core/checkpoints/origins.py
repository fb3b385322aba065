"""Which pre-processing belongs to a file, by where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BY_LAYOUT = {
    "timm": "augreg",
    "augreg-npz": "augreg",
    "passl": "vit",
    "paddleclas": "vit",
    "deit": "deit",
    "deit-distilled": "deit",
    "torchvision": "deit",
    "swag": "deit",
    "mae": "mae",
}


def preprocess_of(layout: str, family: str | None, changes: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """(name of the preset, notes where no preset is exactly what the origin did).

    family: of the model wanted, since timm, PASSL and PaddleClas name ViT, DeiT and MAE alike.
    """
    name, size = _BY_LAYOUT[layout], changes["image_size"]
    if layout in ("timm", "passl", "paddleclas") and family in ("deit", "mae"):
        name = family
    if layout == "passl" and name == "vit" and size == 384:
        name = "vit_384"
    return name, tuple(f"preset {name!r} is near, not exact: {why}" for why in _inexact(layout, name, size))


def _inexact(layout: str, name: str, size: int) -> list[str]:
    if layout == "swag":
        return [f"SWAG resizes the short side to {size} itself, without a margin"]
    if layout == "torchvision":
        return ["torchvision resizes its own weights bilinearly, SWAG's bicubically without a margin"]
    if layout == "paddleclas" and name == "vit":
        return ["PaddleClas resizes with OpenCV's bilinear filter"]
    if name == "augreg" and size > 224:
        return [f"timm evaluates these models at {size} pixels without a margin"]
    if name == "mae" and size > 224:
        return [f"MAE evaluates at {size} pixels without a margin"]
    return []
