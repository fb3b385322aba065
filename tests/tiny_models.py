"""Small models of every family with random, nowhere trivial, parameters."""

import numpy as np
import paddle

from tests import reference
from tome_core.zoo import create_model

FAMILIES = {
    "vit": "vit_ti16",
    "deit": "deit_ti16",
    "deit_distilled": "deit_ti16_distilled",
    "mae": "mae_vit_b16",
}
NUM_HEADS = 3
TOKENS = {"vit": 37, "deit": 37, "deit_distilled": 38, "mae": 37}  # 6 x 6 patches and the special tokens


def tiny_model(family, seed=0, depth=3, **overrides):
    """48x48 images in 8x8 patches, 24 channels, 3 heads, 7 classes; every parameter redrawn from `seed`."""
    options = {"image_size": 48, "num_classes": 7, "patch_size": 8, "embed_dim": 24, "num_heads": NUM_HEADS}
    model = create_model(FAMILIES[family], **{**options, **overrides}, depth=depth)
    randomise(model, seed)
    model.eval()
    return model


def randomise(model, seed):
    """Weights that keep the signal's scale; tokens, biases and LayerNorm scales far from their defaults."""
    rng = np.random.default_rng(seed)
    for name, parameter in model.state_dict().items():
        draw = rng.normal(size=parameter.shape)
        if "norm" in name and name.endswith("weight"):
            draw = 1 + 0.3 * draw
        elif name.endswith("weight"):
            fan_in = np.prod(parameter.shape[1:]) if len(parameter.shape) == 4 else parameter.shape[0]
            draw = 1.5 * draw / np.sqrt(fan_in)
        else:
            draw = 0.5 * draw
        parameter.set_value(paddle.to_tensor(draw.astype(parameter.numpy().dtype)))


def random_image(seed, batch=2, size=48, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(batch, 3, size, size)).astype(dtype)


def weights_of(model):
    """The model's parameters as float64, so that the reference's own rounding does not count."""
    return {name: value.numpy().astype("float64") for name, value in model.state_dict().items()}


def reference_forward(model, image, r_per_block, prop_attn=True):
    image = image.astype("float64")
    return reference.vit_forward(weights_of(model), image, NUM_HEADS, r_per_block, prop_attn)


def case_away_from_ties(family, r_per_block, prop_attn=True, margin=1e-4, **options):
    """(model, image, reference result) of the first seed whose merge decisions do not hang on rounding."""
    for seed in range(50):
        model, image = tiny_model(family, seed, depth=len(r_per_block), **options), random_image(seed)
        expected = reference_forward(model, image, r_per_block, prop_attn)
        if expected.margin > margin:
            return model, image, expected
    raise AssertionError("no seed is away from ties")
