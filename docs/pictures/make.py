"""Make the README's picture: `python docs/pictures/make.py`, with matplotlib for the photograph.

The weights are no trained ones, and not random either. They are written down here: a patch is described by
its mean colour, its coarse gradients and its place; each block lets it look at what is like it, and does no
more. Token Merging then does what it does in any model: merge the most similar. The photograph is Grace
Hopper's portrait, a work of the United States Navy, in the public domain.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import paddle

from tome_core import create_model
from tome_export import export
from tome_export.preprocess import load_image
from tome_export.runtimes import open_runtime
from tome_export.visualize import draw, look

PATCH, GRID, HEADS = 16, 14, 3
COLOUR, EDGES, PLACE, ALL = 2.0, 0.6, 0.7, 1.0
"""How much of a description each part makes up. `ALL` is the same for every patch: with it, dark and bright
patches of one hue differ in direction, not only in length."""
SHARPNESS, SMOOTHING = 6.0, 0.5
"""How strongly attention prefers what is alike, and how much of what it finds a token takes on."""


def described():
    """A ViT-Ti whose tokens describe their patches, see above. It has one class: it does not classify."""
    model = create_model("vit_ti16", num_classes=1)
    width = model.config.embed_dim
    filters = _filters()
    features = 2 * (len(filters) + 4) + 2
    for name, parameter in model.named_parameters():
        value = np.zeros(parameter.shape, np.float32)
        if "norm" in name and name.endswith("weight"):
            value += 1
        elif name == "patch_embed.proj.weight":
            value[0 : 2 * len(filters) : 2] = filters
            value[1 : 2 * len(filters) : 2] = -filters
        elif name == "pos_embed":
            value[0, 1:] = _places(width, 2 * len(filters))
        elif name.endswith("attn.qkv.weight"):
            head = width // HEADS
            for part, scale in ((0, SHARPNESS), (1, 1.0), (2, 1.0)):  # query, key, value
                for i in range(min(features, head)):
                    value[i, part * width + i] = scale
        elif name.endswith("attn.proj.weight"):
            value += SMOOTHING * np.eye(width, dtype=np.float32)
        parameter.set_value(paddle.to_tensor(value))
    model.eval()
    return model


def _filters() -> np.ndarray:
    """Mean colour (3) and grey gradients across and down (2), float32 [5, 3, PATCH, PATCH]."""
    ramp = np.linspace(-1, 1, PATCH, dtype=np.float32) / PATCH**2
    mean = np.eye(3, dtype=np.float32)[:, :, None, None] * np.ones((PATCH, PATCH), np.float32) / PATCH**2
    across = np.broadcast_to(ramp, (3, PATCH, PATCH)) / 3
    return np.concatenate([COLOUR * mean, EDGES * across[None], EDGES * across.transpose(0, 2, 1)[None]])


def _places(width: int, start: int) -> np.ndarray:
    """Smooth in both directions, float32 [patches, width]; each feature with its negative, as everywhere."""
    place = np.arange(GRID, dtype=np.float32) / (GRID - 1) * np.pi / 2
    down, across = (each.ravel() for each in np.meshgrid(place, place, indexing="ij"))
    value = np.zeros((GRID * GRID, width), np.float32)
    features = [PLACE * f(each) for each in (down, across) for f in (np.cos, np.sin)] + [ALL + 0 * down]
    for i, feature in enumerate(features):
        value[:, start + 2 * i], value[:, start + 2 * i + 1] = feature, -feature
    return value


def page():
    """The picture."""
    photo = load_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(described(), Path(folder) / "infer", outputs=("logits", "sources"), r=16)
        with open_runtime("onnx", bundle) as runtime:
            seen = look(bundle, runtime, photo, blocks=False)
        return draw(bundle, ["grace_hopper.jpg"], [photo], [seen], size=460)


def main() -> None:
    picture = page()
    out = Path(__file__).with_name("merged.jpg")
    picture.save(out, quality=90, subsampling=0)
    print(f"{out}: {picture.width} x {picture.height} pixels, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
