"""`model.load_pretrained("dir/imagenet2012-ViT-B_16-224")`, as PASSL's models have it, on real files."""

import io
from dataclasses import replace

import numpy as np
import paddle
import pytest

from tests.tiny_models import randomise
from tome_core import apply_patch, create_model
from tome_core.errors import CheckpointError

# ViT-B/16 at 224 pixels but for the depth: what a file of its first two blocks would hold.
NAME, DEPTH = "imagenet2012-ViT-B_16-224", 2
TINY = {"image_size": 32, "patch_size": 16, "embed_dim": 24, "num_heads": 3, "depth": 2, "num_classes": 5}


@pytest.fixture(scope="module")
def image():
    return paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32"))


def tiny(seed, name="vit_b16", **changes):
    model = create_model(name, **{**TINY, **changes})
    randomise(model, seed)
    return model


def arrays(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_the_call_that_users_know(tmp_path):
    saved = create_model("vit_b16", depth=DEPTH, representation_size=768)
    randomise(saved, 1)
    assert {"head0.weight", "head0.bias"} <= set(saved.state_dict())
    paddle.save(saved.state_dict(), str(tmp_path / f"{NAME}.pdparams"))

    model = create_model("vit_b16", depth=DEPTH)
    assert "head0.weight" not in model.state_dict()
    model.load_pretrained(str(tmp_path / NAME))
    loaded = arrays(model)
    assert set(loaded) == set(saved.state_dict())
    for name, value in arrays(saved).items():
        np.testing.assert_array_equal(loaded[name], value)

    x = paddle.to_tensor(np.random.default_rng(2).normal(size=(1, 3, 224, 224)).astype("float32"))
    np.testing.assert_array_equal(model(x).numpy(), saved.eval()(x).numpy())
    apply_patch(model)
    model.r = 16
    merged = model(x).numpy()
    assert model.tome.schedule.tokens == (197, 181, 165)
    assert np.isfinite(merged).all() and not np.array_equal(merged, saved(x).numpy())


def test_head0_is_really_in_the_way_to_the_head(tmp_path, image):
    """With its layer and its tanh, the logits are W tanh(W0 f + b0) + b of the features f."""
    saved = tiny(3, representation_size=24)
    paddle.save(saved.state_dict(), str(tmp_path / "m.pdparams"))
    model = tiny(4)
    model.load_pretrained(str(tmp_path / "m"))
    features = model.norm(model.forward_features(image)[:, 0]).numpy()
    weights = arrays(saved)
    hidden = np.tanh(features @ weights["head0.weight"] + weights["head0.bias"])
    expected = hidden @ weights["head.weight"] + weights["head.bias"]
    np.testing.assert_allclose(model(image).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["vit_b16", "deit_b16", "deit_b16_distilled", "mae_vit_b16"], ids=lambda name: name
)
def test_every_family_round_trips(name, tmp_path, image):
    saved, model = tiny(5, name), tiny(6, name)
    paddle.save(saved.state_dict(), str(tmp_path / "m.pdparams"))
    assert not np.allclose(model(image).numpy(), saved(image).numpy())
    model.load_pretrained(str(tmp_path / "m"))
    np.testing.assert_array_equal(model(image).numpy(), saved(image).numpy())


def test_half_precision_files_are_cast(tmp_path, image):
    saved = tiny(7, representation_size=24)
    half = {name: value.astype("float16") for name, value in saved.state_dict().items()}
    paddle.save(half, str(tmp_path / "half.pdparams"))
    model = tiny(8)
    model.load_pretrained(str(tmp_path / "half"))
    for name, value in model.state_dict().items():
        assert value.dtype == paddle.float32
        np.testing.assert_array_equal(value.numpy(), half[name].numpy().astype("float32"))
    difference = np.abs(model(image).numpy() - saved(image).numpy()).max()
    assert 0 < difference < 0.05


def test_a_patched_model_loads_too(tmp_path, image):
    saved = tiny(9)
    paddle.save(saved.state_dict(), str(tmp_path / "m.pdparams"))
    model = apply_patch(tiny(10))
    model.r = 1
    model.load_pretrained(str(tmp_path / "m"))
    apply_patch(saved).r = 1
    np.testing.assert_array_equal(model(image).numpy(), saved(image).numpy())


def refused(state, path, told, model=None):
    """Loading is refused with these words, and the model is as it was, down to its structure."""
    paddle.save(state, str(path / "m.pdparams"))
    model = model or tiny(11)
    before, config = arrays(model), model.config
    with pytest.raises(CheckpointError, match=told) as caught:
        model.load_pretrained(str(path / "m"))
    assert "\n" not in str(caught.value)
    assert model.config == config
    after = arrays(model)
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_a_missing_key_is_named_and_nothing_is_loaded(tmp_path):
    state = dict(tiny(12).state_dict())
    del state["blocks.1.mlp.fc2.bias"]
    refused(state, tmp_path, r"1 missing: blocks\.1\.mlp\.fc2\.bias")


def test_an_unexpected_key_is_named_and_nothing_is_loaded(tmp_path):
    state = {**tiny(12).state_dict(), "blocks.2.norm1.bias": paddle.zeros([24])}
    refused(state, tmp_path, r"1 unexpected: blocks\.2\.norm1\.bias")


def test_a_mis_shaped_key_is_named_and_nothing_is_loaded(tmp_path):
    state = dict(tiny(12).state_dict())
    state["head.weight"] = state["head.weight"].t()
    refused(state, tmp_path, r"1 mis-shaped: head\.weight \(file \[5, 24\], model \[24, 5\]\)")


def test_with_head0_a_misfit_leaves_no_head0_behind(tmp_path):
    state = dict(tiny(12, representation_size=24).state_dict())
    del state["norm.bias"]
    refused(state, tmp_path, r"1 missing: norm\.bias")


def test_a_head0_without_its_bias(tmp_path):
    state = dict(tiny(12, representation_size=24).state_dict())
    del state["head0.bias"]
    refused(state, tmp_path, r"missing: head0\.bias")


def test_a_head0_that_is_no_matrix(tmp_path):
    state = {**tiny(12).state_dict(), "head0.weight": paddle.zeros([24])}
    refused(state, tmp_path, r"unexpected: head0\.weight")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 no zip"])
def test_files_that_hold_no_weights(content, tmp_path):
    (tmp_path / "m.pdparams").write_bytes(content)
    with pytest.raises(CheckpointError, match="m.pdparams"):
        tiny(13).load_pretrained(str(tmp_path / "m"))


def test_a_truncated_file(tmp_path):
    stream = io.BytesIO()
    paddle.save(tiny(14).state_dict(), stream)
    (tmp_path / "m.pdparams").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(CheckpointError, match="m.pdparams"):
        tiny(13).load_pretrained(str(tmp_path / "m"))


def test_no_such_file(tmp_path):
    with pytest.raises(CheckpointError, match=f"{NAME}.pdparams"):
        tiny(13).load_pretrained(str(tmp_path / NAME))


def test_the_suffix_is_always_added(tmp_path):
    """As PASSL does it: the path is given without, dots in it or not."""
    saved = tiny(15)
    paddle.save(saved.state_dict(), str(tmp_path / "v1.5.pdparams"))
    model = tiny(16)
    model.load_pretrained(str(tmp_path / "v1.5"))
    np.testing.assert_array_equal(arrays(model)["cls_token"], arrays(saved)["cls_token"])


def test_the_configuration_tells_what_was_loaded(tmp_path):
    saved = tiny(17, representation_size=8)
    paddle.save(saved.state_dict(), str(tmp_path / "m.pdparams"))
    model = tiny(18)
    model.load_pretrained(str(tmp_path / "m"))
    assert model.config == replace(saved.config) and model.config.representation_size == 8
    model.load_pretrained(str(tmp_path / "m"))  # and again, now that it has the layer
