"""PaddleClas's own classes, with random weights: ours compute the same. Needs the package paddleclas.

Its declared dependencies clash with current numpy: `tests/conftest.py` says how to install it.
"""

import importlib.util
import sys

import numpy as np
import paddle
import pytest

from tests.tiny_models import randomise
from tome_core import create_model
from tome_core.checkpoints import read_checkpoint
from tome_core.checkpoints.layouts import convert
from tome_core.checkpoints.loading import load_checkpoint, load_weights

from .foreign import CLASSES, DEPTH, HEADS, PATCH, SIZE, WIDTH

found = importlib.util.find_spec("paddleclas")
if found is not None and found.submodule_search_locations:
    sys.path.append(found.submodule_search_locations[0])
try:
    from ppcls.arch.backbone.model_zoo import distilled_vision_transformer as deit
    from ppcls.arch.backbone.model_zoo import vision_transformer as vit
except Exception as error:  # it imports far more than it needs
    pytest.skip(f"paddleclas cannot be imported: {error}", allow_module_level=True)

TINY = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
TINY["class_num"] = CLASSES


def deviation(theirs, ours, size):
    image = paddle.to_tensor(np.random.default_rng(5).normal(size=(2, 3, size, size)).astype("f4"))
    expected, found = theirs(image).numpy(), ours(image).numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("build", "options", "layout"),
    [
        (vit.VisionTransformer, {"qkv_bias": True, "epsilon": 1e-6}, "passl"),
        (vit.VisionTransformer, {}, "passl"),
        (vit.VisionTransformer, {"qkv_bias": True, "epsilon": 1e-6, "mlp_ratio": 3}, "passl"),
        (deit.DistilledVisionTransformer, {"qkv_bias": True, "epsilon": 1e-6}, "deit-distilled"),
    ],
)
def test_its_classes(tmp_path, build, options, layout, record_property):
    model = build(**TINY, **options)
    randomise(model, 3)
    model.eval()
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"))
    checkpoint = read_checkpoint(tmp_path / "model.pdparams")
    converted = convert(checkpoint.tensors, format=checkpoint.format)
    assert converted.layout == layout
    ours = create_model("vit_ti16", **{"num_heads": HEADS, **converted.changes})
    load_weights(ours, converted.tensors)
    found = deviation(model, ours, SIZE)
    record_property("deviation", found)
    assert found < 1e-4


@pytest.mark.parametrize(
    ("build", "name", "layout"),
    [
        (vit.ViT_small_patch16_224, "paddleclas_vit_s16", "paddleclas"),
        (deit.DeiT_tiny_patch16_224, "deit_ti16", "passl"),
        (deit.DeiT_tiny_distilled_patch16_224, "deit_ti16_distilled", "deit-distilled"),
    ],
)
def test_its_named_models(tmp_path, build, name, layout, record_property):
    model = build()
    randomise(model, 4)
    model.eval()
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"))
    loaded = load_checkpoint(name, tmp_path / "model.pdparams")
    assert loaded.layout == layout
    found = deviation(model, loaded.model, 224)
    record_property("deviation", found)
    assert found < 1e-4
    if name == "paddleclas_vit_s16":  # its scale of the scores is no detail
        plain = create_model(name, qk_scale=None)
        plain.set_state_dict(model.state_dict())
        assert deviation(model, plain, 224) > 1e-2
