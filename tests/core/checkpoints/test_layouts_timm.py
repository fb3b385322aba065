"""timm's own models, with random weights: ours compute the same. Needs torch and timm; CPU builds will do."""

import numpy as np
import paddle
import pytest

from tome_core import create_model
from tome_core.checkpoints import read_checkpoint
from tome_core.checkpoints.layouts import convert
from tome_core.checkpoints.loading import load_checkpoint, load_weights
from tome_core.errors import CheckpointError

from .foreign import CLASSES, DEPTH, HEADS, PATCH, SIZE, WIDTH, augreg_like

torch = pytest.importorskip("torch")
try:
    import timm
    from timm.models.vision_transformer import VisionTransformer
except Exception as error:  # an installation that does not fit its torch fails with more than ImportError
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

TINY = {
    "img_size": SIZE,
    "patch_size": PATCH,
    "embed_dim": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
    "num_classes": CLASSES,
}


def randomised(model, seed=0):
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=draw)
            if "norm" in name and name.endswith("weight"):
                values = 1 + 0.3 * values
            elif name.endswith("weight"):
                values = 1.5 * values / parameter[0].numel() ** 0.5
            else:
                values = 0.5 * values
            parameter.copy_(values)
    return model.eval()


def deviation(theirs, ours, size):
    image = np.random.default_rng(5).normal(size=(2, 3, size, size)).astype("f4")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(image)).numpy()
    found = ours(paddle.to_tensor(image)).numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def ours_of(converted):
    model = create_model("vit_ti16", **{"num_heads": HEADS, **converted.changes})
    load_weights(model, converted.tensors)
    return model


@pytest.mark.parametrize(
    ("theirs", "ours", "layout", "legacy"),
    [
        ("vit_tiny_patch16_224", "vit_ti16", "timm", False),
        ("vit_small_patch32_224", None, "timm", False),
        ("deit_tiny_patch16_224", "deit_ti16", "timm", True),
        ("deit_tiny_distilled_patch16_224", "deit_ti16_distilled", "deit-distilled", False),
        ("vit_base_patch32_224", "vit_b32", "timm", False),
    ],
)
def test_named_models(tmp_path, theirs, ours, layout, legacy, record_property):
    model = randomised(timm.create_model(theirs))
    path = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, path, _use_new_zipfile_serialization=not legacy)
    if ours is None:  # a shape that has no name here
        with pytest.raises(CheckpointError, match="384 wide, 12 blocks deep, patch 32"):
            load_checkpoint("vit_s16", path)
        return
    loaded = load_checkpoint(ours, path)
    assert loaded.layout == layout
    found = deviation(model, loaded.model, 224)
    record_property("deviation", found)
    assert found < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_pool": "avg"},  # as MAE fine-tunes: fc_norm
        {"qkv_bias": False},
        {"mlp_ratio": 3.0},
        {"class_token": True, "img_size": 64},
    ],
)
def test_variants(tmp_path, options, record_property):
    model = randomised(VisionTransformer(**{**TINY, **options}))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    converted = convert(checkpoint.tensors, format=checkpoint.format)
    found = deviation(model, ours_of(converted), options.get("img_size", SIZE))
    record_property("deviation", found)
    assert found < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(tmp_path, dtype):
    model = randomised(VisionTransformer(**TINY)).to(getattr(torch, dtype))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    converted = convert(read_checkpoint(tmp_path / "model.pth").tensors, format="torch-zip")
    assert deviation(model.float(), ours_of(converted), SIZE) < 1e-4


def test_a_google_file_that_timm_reads_too(tmp_path, record_property):
    np.savez(tmp_path / "B_16.npz", **augreg_like(3).tensors)
    model = VisionTransformer(**TINY).eval()
    model.load_pretrained(str(tmp_path / "B_16.npz"))
    converted = convert(read_checkpoint(tmp_path / "B_16.npz").tensors, format="npz")
    found = deviation(model, ours_of(converted), SIZE)
    record_property("deviation", found)
    assert found < 1e-4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"init_values": 0.1}, "LayerScale"),
        ({"qk_norm": True}, "qk-norm"),
        ({"pre_norm": True}, "LayerNorm before the blocks"),
        ({"reg_tokens": 4}, "register tokens"),
        ({"class_token": False, "global_pool": "avg"}, "lacks cls_token"),
        ({"no_embed_class": True}, "no_embed_class"),
        ({"global_pool": "map"}, "attention pooling"),
        ({"num_classes": 0}, None),
    ],
)
def test_variants_that_our_models_are_not(options, word):
    state = VisionTransformer(**{**TINY, **options}).state_dict()
    tensors = {name: value.numpy() for name, value in state.items()}
    if word is None:
        assert "num_classes" not in convert(tensors).changes
        return
    with pytest.raises(CheckpointError, match=word):
        convert(tensors)
