"""Every origin's pre-processing, from the file's keys to the recipe, as published."""

import numpy as np
import pytest

from tome_core.checkpoints.layouts import convert
from tome_core.checkpoints.origins import preprocess_of
from tome_export.preprocess import preset

from .foreign import augreg_like, timm_like, torchvision_like
from .passl_models import passl_model

HALF, IMAGENET = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)
WITH_BIAS = {"qkv_bias": True, "epsilon": 1e-6}


def passl(**options):
    model = passl_model(1, **WITH_BIAS, **options)
    return {name: value.numpy() for name, value in model.state_dict().items()}


SWAG = torchvision_like(swag=True, mlp=("linear_1", "linear_2")).tensors
# what: (tensors at 48 pixels, layout asked for, family, {pixels: (short side, filter, mean)})
ORIGINS = {
    "timm": (timm_like().tensors, None, "vit", {224: (248, "bicubic", HALF), 384: (384, "bicubic", HALF)}),
    "Google": (
        augreg_like().tensors,
        None,
        "vit",
        {224: (248, "bicubic", HALF), 384: (384, "bicubic", HALF)},
    ),
    "DeiT": (
        timm_like().tensors,
        None,
        "deit",
        {224: (256, "bicubic", IMAGENET), 384: (438, "bicubic", IMAGENET)},
    ),
    "DeiT distilled": (
        timm_like(distilled=True).tensors,
        None,
        "deit",
        {224: (256, "bicubic", IMAGENET), 384: (438, "bicubic", IMAGENET)},
    ),
    "MAE": (
        timm_like(pooled=True).tensors,
        None,
        "mae",
        {224: (256, "bicubic", IMAGENET), 448: (448, "bicubic", IMAGENET)},
    ),
    "torchvision": (torchvision_like().tensors, None, "vit", {224: (256, "bilinear", IMAGENET)}),
    "torchvision SWAG": (torchvision_like().tensors, None, "vit", {384: (384, "bicubic", IMAGENET)}),
    "SWAG": (SWAG, None, "vit", {224: (224, "bicubic", IMAGENET), 384: (384, "bicubic", IMAGENET)}),
    "PASSL": (
        passl(representation_size=24),
        None,
        "vit",
        {224: (256, "bicubic", HALF), 384: (None, "bilinear", HALF)},
    ),
    "PaddleClas": (
        passl(),
        "paddleclas",
        "vit",
        {224: (256, "bilinear-opencv", HALF), 384: (384, "bilinear-opencv", HALF)},
    ),
    "PaddleClas DeiT": (passl(), "paddleclas", "deit", {224: (256, "bicubic", IMAGENET)}),
}


def enlarged(tensors, size):
    """The tensors with position embeddings for `size` pixels."""
    name = next(name for name in tensors if "pos_embed" in name)
    shape = list(tensors[name].shape)
    axis = shape.index(max(shape[:2]))  # SWAG has the tokens first
    patch = 48 // int((shape[axis] - 1) ** 0.5)
    shape[axis] = shape[axis] - 36 + (size // patch) ** 2
    return {**tensors, name: np.ones(shape, "f4")}


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_recipe_of_an_origin(origin):
    tensors, layout, family, recipes = ORIGINS[origin]
    for size, recipe in recipes.items():
        converted = convert(enlarged(tensors, size), layout, family=family)
        assert converted.changes["image_size"] == size
        found = preset(converted.preprocess, size)
        assert (found.resize, found.interpolation, found.mean) == recipe
        assert found.crop == size


def test_torchvisions_large_model_has_a_margin_of_its_own():
    changes = {"image_size": 224, "embed_dim": 1024, "patch_size": 16}
    found = preset(preprocess_of("torchvision", "vit", changes)[0], 224)
    assert (found.resize, found.interpolation, found.mean) == (242, "bilinear", IMAGENET)
    for other in (changes | {"patch_size": 32}, changes | {"embed_dim": 768}):
        assert preset(preprocess_of("torchvision", "vit", other)[0], 224).resize == 256


def test_paddleclas_odd_small_model_is_known_by_its_shape():
    state = {"pos_embed": np.ones((1, 197, 768), "f4"), "cls_token": np.ones((1, 1, 768), "f4")}
    state |= {"patch_embed.proj.weight": np.ones((768, 3, 16, 16), "f4"), "head.bias": np.ones(9, "f4")}
    state |= {f"blocks.{i}.mlp.fc1.bias": np.ones(2304, "f4") for i in range(8)}
    state["blocks.0.mlp.fc1.weight"] = np.ones((768, 2304), "f4")
    assert convert(state).preprocess == "paddleclas"


def test_the_fixtures_have_the_size_that_enlarging_them_assumes():
    for tensors, layout, family, _ in ORIGINS.values():
        assert convert(tensors, layout, family=family).changes["image_size"] == 48
