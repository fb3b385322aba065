"""Which pre-processing belongs to a file, by where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BY_LAYOUT = {
    "timm": "augreg",
    "augreg-npz": "augreg",
    "passl": "vit",
    "paddleclas": "paddleclas",
    "deit": "deit",
    "deit-distilled": "deit",
    "torchvision": "torchvision",
    "swag": "swag",
    "mae": "mae",
}
# What the same origins do at other image sizes: (pixels it begins above, preset).
_LARGE = {
    "augreg": (224, "augreg_384"),
    "mae": (224, "swag"),  # the same recipe: no margin, bicubic, ImageNet's mean and deviation
    "torchvision": (224, "swag"),  # torchvision publishes none but SWAG's at these sizes
    "paddleclas": (224, "paddleclas_384"),
}


def preprocess_of(
    layout: str, family: str | None, changes: Mapping[str, Any], asked: bool = False
) -> tuple[str, tuple[str, ...]]:
    """(name of the preset, notes where another origin's files look the same and are evaluated otherwise).

    family: of the model wanted, since timm, PASSL and PaddleClas name ViT, DeiT and MAE alike.
    changes: `Converted.changes`; the image size is the file's own, at which its model was evaluated.
    asked: the layout was given by the user, not recognised.
    """
    name, size = _BY_LAYOUT[layout], changes["image_size"]
    if layout in ("timm", "passl", "paddleclas") and family in ("deit", "mae"):
        name = family
    above, large = _LARGE.get(name, (size, name))
    if size > above:
        name = large
    elif name == "torchvision" and (changes.get("embed_dim"), changes.get("patch_size")) == (1024, 16):
        name = "torchvision_l16"  # its published weights are evaluated with a margin of their own
    elif name == "vit" and size == 384:
        name = "vit_384"
    notes = []
    if name.startswith("torchvision"):
        notes.append("torchvision's SWAG_LINEAR weights look alike: if these are, pass --preprocess swag")
    if layout == "passl" and name.startswith("vit") and not asked and not changes.get("representation_size"):
        notes.append("PaddleClas resizes pictures otherwise: for its files pass --weights-layout paddleclas")
    return name, tuple(notes)
