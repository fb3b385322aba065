"""The shape of a model object that somebody else built, read off what patching found out about it."""

from __future__ import annotations

from paddle import nn

from tome_core.errors import PatchError
from tome_core.structure import find_blocks, image_shape
from tome_core.zoo.config import ViTConfig


def describe(model: nn.Layer, image_size: int | None = None) -> ViTConfig:
    """The configuration of a patched model; `name` is its own class's.

    image_size: in pixels, for models that do not tell. Raises PatchError for images that are not square.
    """
    if isinstance(getattr(model, "config", None), ViTConfig):
        return model.config
    name = type(model).__mro__[2].__name__  # behind the patched class and the patch
    layout, blocks = model.tome.layout, find_blocks(model)
    channels, height, width = image_shape(model, image_size)
    if channels != 3 or height != width:
        raise PatchError(
            f"cannot export {name}: its images are {channels} x {height} x {width}, not RGB squares"
        )
    patch = next(
        (layer.weight.shape[-1] for layer in model.sublayers() if isinstance(layer, nn.Conv2D)), None
    )
    if patch is None:
        raise PatchError(f"cannot export {name}: it has no convolution that makes patches")
    head = [layer for layer in model.sublayers() if isinstance(layer, nn.Linear)][-1]
    hidden = next(layer for layer in blocks[0].mlp.sublayers() if isinstance(layer, nn.Linear)).weight.shape[
        1
    ]
    pooled = layout.readout != "special"
    return ViTConfig(
        name=name,
        family="mae" if pooled else "deit" if layout.special > 1 else "vit",
        patch_size=patch,
        embed_dim=layout.channels,
        depth=len(blocks),
        num_heads=blocks[0]._tome_parts.num_heads,
        image_size=height,
        num_classes=head.weight.shape[1],
        mlp_ratio=hidden / layout.channels,
        distilled=layout.special > 1,
        global_pool=pooled,
    )
