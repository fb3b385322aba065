"""`load_checkpoint`: from a file and a model's name to a model, whole or not at all."""

import hashlib
import re

import numpy as np
import paddle
import pytest

from tests.tiny_models import random_image, randomise
from tome_core import create_model
from tome_core.checkpoints.loading import load_checkpoint
from tome_core.checkpoints.resize import resize_position_embedding
from tome_core.errors import CheckpointError, ModelError

from .foreign import safetensors_file, torch_file

SMALL = {"image_size": 32, "num_classes": 5}


def saved_model(folder, name="vit_ti16", file="weights.pdparams", seed=0, **changes):
    model = create_model(name, **{**SMALL, **changes})
    randomise(model, seed)
    paddle.save(model.state_dict(), str(folder / file))
    return model, folder / file


def logits(model, size=32, channels=3):
    return model(paddle.to_tensor(random_image(4, size=size))).numpy()


def refused(*arguments, **options):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(arguments[1]))
    return message


def test_a_paddle_file(tmp_path):
    model, path = saved_model(tmp_path)
    loaded = load_checkpoint("vit_ti16", path)
    np.testing.assert_array_equal(logits(loaded.model), logits(model))
    assert loaded.model.config == model.config and not loaded.model.training
    assert (loaded.path, loaded.format, loaded.layout) == (path, "pdparams", "passl")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.preprocess == "vit"


def test_a_torch_file_and_the_family_it_is_loaded_for(tmp_path):
    model, _ = saved_model(tmp_path)
    linear = re.compile(r"(blocks.*(qkv|proj|fc1|fc2)|head)\.weight")
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    state = {name: array.T.copy() if linear.fullmatch(name) else array for name, array in state.items()}
    (tmp_path / "weights.pth").write_bytes(torch_file(state, wrapper="state_dict"))
    (tmp_path / "weights.safetensors").write_bytes(safetensors_file(state))
    for file, name, preprocess in (
        ("weights.pth", "vit_ti16", "augreg"),
        ("weights.pth", "deit_ti16", "deit"),
        ("weights.safetensors", "vit_ti16", "augreg"),
    ):
        loaded = load_checkpoint(name, tmp_path / file)
        assert (loaded.layout, loaded.preprocess) == ("timm", preprocess)
        np.testing.assert_array_equal(logits(loaded.model), logits(model))
    assert load_checkpoint("vit_ti16", tmp_path / "weights.pth", layout="deit").preprocess == "deit"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("deit_ti16_distilled", {}),
        ("vit_ti16", {"representation_size": 64}),
        ("vit_ti16", {"qkv_bias": False, "epsilon": 1e-5}),
        ("vit_ti16", {"global_pool": True}),
    ],
)
def test_the_options_follow_the_file(tmp_path, name, changes):
    model, path = saved_model(tmp_path, name, **changes)
    loaded = load_checkpoint(name, path)
    assert loaded.model.config == model.config
    np.testing.assert_array_equal(logits(loaded.model), logits(model))


def test_another_image_size(tmp_path):
    model, path = saved_model(tmp_path)
    loaded = load_checkpoint("vit_ti16", path, image_size=64)
    assert loaded.model.config.image_size == 64
    assert any("from 32 to 64 pixels" in note for note in loaded.notes)
    by_hand = create_model("vit_ti16", image_size=64, num_classes=5)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    by_hand.set_state_dict(state | {"pos_embed": resize_position_embedding(state["pos_embed"], 1, 16)})
    np.testing.assert_array_equal(logits(loaded.model, 64), logits(by_hand, 64))
    with pytest.raises(ModelError, match="not a multiple of the patch size 16"):
        load_checkpoint("vit_ti16", path, image_size=70)


def test_the_distillation_token_keeps_its_position(tmp_path):
    model, path = saved_model(tmp_path, "deit_ti16_distilled")
    found = load_checkpoint("deit_ti16_distilled", path, image_size=48).model.pos_embed
    assert found.shape == [1, 11, 192]
    np.testing.assert_array_equal(found[:, :2].numpy(), model.pos_embed[:, :2].numpy())


# ---------------------------------------------------------------- heads


def test_another_number_of_classes_needs_a_new_head(tmp_path):
    model, path = saved_model(tmp_path)
    assert "5 classes, not 9" in refused("vit_ti16", path, num_classes=9)
    loaded = load_checkpoint("vit_ti16", path, num_classes=9, reset_head=True)
    again = load_checkpoint("vit_ti16", path, num_classes=9, reset_head=True)
    assert logits(loaded.model).shape == (2, 9)
    np.testing.assert_array_equal(logits(loaded.model), logits(again.model))
    assert 0.015 < float(loaded.model.head.weight.std()) < 0.025
    np.testing.assert_array_equal(loaded.model.norm.weight.numpy(), model.norm.weight.numpy())
    assert any("new and random (9 classes)" in note for note in loaded.notes)


def test_the_right_number_of_classes_keeps_the_head(tmp_path):
    model, path = saved_model(tmp_path)
    loaded = load_checkpoint("vit_ti16", path, num_classes=5)
    np.testing.assert_array_equal(loaded.model.head.weight.numpy(), model.head.weight.numpy())


def test_a_file_without_a_head(tmp_path):
    model, path = saved_model(tmp_path)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("head")}
    paddle.save(state, str(path))
    assert "no classifier" in refused("vit_ti16", path)
    assert load_checkpoint("vit_ti16", path, reset_head=True).model.config.num_classes == 1000
    assert load_checkpoint("vit_ti16", path, reset_head=True, num_classes=3).model.head.weight.shape == [
        192,
        3,
    ]


def test_both_heads_of_a_distilled_model_are_reset(tmp_path):
    _, path = saved_model(tmp_path, "deit_ti16_distilled")
    model = load_checkpoint("deit_ti16_distilled", path, num_classes=4, reset_head=True).model
    assert model.head_dist.bias.shape == [4] and not np.allclose(model.head.weight, model.head_dist.weight)


# ---------------------------------------------------------------- other models


def outline(width, depth, patch, hidden, **more):
    """As little of a big model's file as tells its shape, in half precision; Linear weights [in, out]."""
    state = {
        "pos_embed": np.ones((1, 197, width), "f2"),
        "cls_token": np.ones((1, 1, width), "f2"),
        "patch_embed.proj.weight": np.ones((width, 3, patch, patch), "f2"),
        "blocks.0.mlp.fc1.weight": np.ones((width, hidden), "f2"),
        "head.bias": np.ones(1000, "f2"),
    }
    state |= {f"blocks.{i}.mlp.fc1.bias": np.ones(hidden, "f2") for i in range(depth)}
    return state | more


@pytest.mark.parametrize(
    ("asked", "state", "says", "advice"),
    [
        (
            "vit_b16",
            outline(1024, 24, 16, 4096),
            "1024 wide, 24 blocks deep, patch 16",
            "try --model vit_l16",
        ),
        (
            "mae_vit_b16",
            outline(1024, 24, 16, 4096, **{"fc_norm.weight": np.ones(1024, "f2")}),
            "1024",
            "mae_vit_l16",
        ),
        ("vit_b16", outline(768, 12, 32, 3072), "patch 32", "try --model vit_b32"),
        ("vit_s16", outline(768, 8, 16, 2304), "MLPs 2304 wide, 8 heads", "try --model paddleclas_vit_s16"),
        ("vit_b16", outline(768, 11, 16, 3072), "11 blocks deep", "no model here has that shape"),
        (
            "deit_s16",
            outline(
                384,
                12,
                16,
                1536,
                dist_token=np.ones((1, 1, 384), "f2"),
                pos_embed=np.ones((1, 198, 384), "f2"),
            ),
            "with a distillation token",
            "try --model deit_s16_distilled",
        ),
        ("deit_s16_distilled", outline(384, 12, 16, 1536), "without a distillation", "try --model deit_s16"),
    ],
)
def test_a_file_of_another_model_says_which(tmp_path, asked, state, says, advice):
    path = tmp_path / "weights.pdparams"
    paddle.save(state, str(path))
    message = refused(asked, path)
    assert says in message and message.endswith(advice)


def test_missing_and_mis_shaped_weights_are_named(tmp_path):
    model, path = saved_model(tmp_path)
    state = {k: v for k, v in model.state_dict().items() if k != "blocks.3.norm2.bias"}
    state["blocks.4.attn.proj.bias"] = paddle.zeros([191])
    paddle.save(state, str(path))
    message = refused("vit_ti16", path)
    assert "1 missing: blocks.3.norm2.bias" in message
    assert "1 mis-shaped: blocks.4.attn.proj.bias (file [191], model [192])" in message


def test_lies_about_the_size_of_the_heads_take_no_memory(tmp_path):
    """A model built to believe these two biases would take 400 GB."""
    model, path = saved_model(tmp_path, representation_size=64)
    state = model.state_dict() | {"head0.bias": np.ones(1_000_000, "f2"), "head.bias": np.ones(100_000, "f2")}
    paddle.save(state, str(path))
    assert "head0.weight is [192, 64], not [192, 1000000]" in refused("vit_ti16", path)


def test_nan_is_refused_unless_allowed(tmp_path):
    model, path = saved_model(tmp_path)
    model.head.bias.set_value(np.full(5, np.nan, "f4"))
    paddle.save(model.state_dict(), str(path))
    assert "NaN" in refused("vit_ti16", path)
    assert np.isnan(load_checkpoint("vit_ti16", path, allow_nonfinite=True).model.head.bias.numpy()).all()


def test_an_unknown_model_or_file(tmp_path):
    _, path = saved_model(tmp_path)
    with pytest.raises(ModelError, match="did you mean"):
        load_checkpoint("vit_ti_16", path)
    assert "no such file" in refused("vit_ti16", tmp_path / "none.pdparams")
