"""Files in every layout, with its own true structure: our model computes what the original computes."""

import numpy as np
import paddle
import pytest

from tests import reference
from tome_core import apply_patch, create_model
from tome_core.checkpoints import read_checkpoint
from tome_core.checkpoints.layouts import LAYOUTS, convert
from tome_core.checkpoints.loading import load_weights
from tome_export.preprocess import PRESETS

from . import foreign
from .foreign import OPTIONS, augreg_like, safetensors_file, timm_like, torch_file, torchvision_like
from .passl_models import passl_model

IMAGE = np.random.default_rng(9).normal(size=(2, 3, foreign.SIZE, foreign.SIZE))
SHAPE = {
    "image_size": foreign.SIZE,
    "patch_size": foreign.PATCH,
    "embed_dim": foreign.WIDTH,
    "depth": foreign.DEPTH,
    "mlp_ratio": 4.0,
    "num_classes": foreign.CLASSES,
}
PLAIN = {
    "qkv_bias": True,
    "epsilon": 1e-6,
    "distilled": False,
    "global_pool": False,
    "representation_size": None,
}


def logits_of(converted, image=IMAGE, name="vit_ti16", options=OPTIONS):
    model = create_model(name, **{**options, **converted.changes})
    load_weights(model, converted.tensors)
    return model(paddle.to_tensor(image.astype("float32"))).numpy()


def deviation(found, expected):
    """Largest difference relative to the largest logit."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def read(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return read_checkpoint(path)


def npz(folder, tensors):
    np.savez(folder / "B_16.npz", **tensors)
    return read_checkpoint(folder / "B_16.npz")


def paddle_saved(folder, name, model, wrap=lambda state: state):
    paddle.save(wrap(model.state_dict()), str(folder / name))
    return read_checkpoint(folder / name)


# ---------------------------------------------------------------- torch and JAX

ORIGINALS = {
    "timm": (timm_like(1), "timm", "augreg", {}),
    "timm, pre_logits": (timm_like(2, pre_logits=True), "timm", "augreg", {"representation_size": 24}),
    "DeiT distilled": (timm_like(3, distilled=True), "deit-distilled", "deit", {"distilled": True}),
    "MAE": (timm_like(4, pooled=True), "mae", "mae", {"global_pool": True}),
    "torchvision": (torchvision_like(5), "torchvision", "torchvision", {}),
    "torchvision 0.12": (
        torchvision_like(6, mlp=("linear_1", "linear_2")),
        "torchvision",
        "torchvision",
        {},
    ),
    "torchvision, pre_logits": (
        torchvision_like(7, pre_logits=True),
        "torchvision",
        "torchvision",
        {"representation_size": 48},
    ),
    "SWAG": (torchvision_like(8, swag=True, mlp=("linear_1", "linear_2")), "swag", "swag", {}),
}


@pytest.mark.parametrize("case", ORIGINALS)
@pytest.mark.parametrize("container", ["pth", "pth in model", "safetensors"])
def test_torch_files(tmp_path, case, container):
    original, layout, preprocess, changes = ORIGINALS[case]
    if container == "safetensors":
        checkpoint = read(tmp_path, "model.safetensors", safetensors_file(original.tensors))
    else:
        wrapper = "model" if "model" in container else None
        checkpoint = read(tmp_path, "model.pth", torch_file(original.tensors, wrapper))
    converted = convert(checkpoint.tensors, format=checkpoint.format)
    assert (converted.layout, converted.preprocess) == (layout, preprocess)
    assert converted.changes == SHAPE | PLAIN | changes
    assert deviation(logits_of(converted), original.forward(IMAGE)) < 1e-5


@pytest.mark.parametrize("pre_logits", [False, True])
def test_augreg_npz(tmp_path, pre_logits):
    original = augreg_like(10, pre_logits=pre_logits)
    checkpoint = npz(tmp_path, original.tensors)
    converted = convert(checkpoint.tensors, format=checkpoint.format)
    assert (converted.layout, converted.preprocess) == ("augreg-npz", "augreg")
    head = {"representation_size": 24 if pre_logits else None}
    assert converted.changes == SHAPE | PLAIN | head | {"num_heads": foreign.HEADS}
    assert deviation(logits_of(converted, options={}), original.forward(IMAGE)) < 1e-5


def test_google_used_an_approximate_gelu_and_it_hardly_matters():
    """JAX's `nn.gelu` is the tanh approximation; timm, PASSL and this project compute the exact function."""

    def tanh_gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    exact, approximate = augreg_like(10), augreg_like(10, gelu=tanh_gelu)
    assert 0 < deviation(approximate.forward(IMAGE), exact.forward(IMAGE)) < 2e-3


@pytest.mark.parametrize(("code", "kind"), [("f2", "float16"), ("bf16", None)])
def test_half_precision_files(tmp_path, code, kind):
    original = timm_like(11)
    checkpoint = read(tmp_path, "half.pth", torch_file(original.tensors, code=code))
    converted = convert(checkpoint.tensors, format=checkpoint.format)
    assert {tensor.dtype.name for tensor in converted.tensors.values()} == {"float32"}
    assert any(kind in note for note in converted.notes) if kind else True
    for name, tensor in original.tensors.items():  # the original, computing with what the file could keep
        half = tensor.astype("f2") if code == "f2" else (tensor.view("u4") >> 16 << 16).view("f4")
        original.tensors[name] = half.astype("f4")
    assert deviation(logits_of(converted), original.forward(IMAGE)) < 1e-5


# ---------------------------------------------------------------- Paddle

WITH_BIAS = {"qkv_bias": True, "epsilon": 1e-6}
PASSL = {
    "224": ({**WITH_BIAS, "representation_size": 24}, "passl", "vit", {"representation_size": 24}),
    "384": (WITH_BIAS, "passl", "vit", {}),
    "huge": (
        {"representation_size": 24, "scale": 0.02},
        "passl",
        "vit",
        {"representation_size": 24, "qkv_bias": False, "epsilon": 1e-5},
    ),
    "DeiT distilled": ({**WITH_BIAS, "distilled": True}, "deit-distilled", "deit", {"distilled": True}),
    "MAE": ({**WITH_BIAS, "pooled": True}, "mae", "mae", {"global_pool": True}),
}


@pytest.mark.parametrize("case", PASSL)
@pytest.mark.parametrize("wrapped", [False, True])
def test_passl_files(tmp_path, case, wrapped):
    options, layout, preprocess, changes = PASSL[case]
    model = passl_model(12, **options)
    if wrapped:  # as PASSL's MAE writes them
        checkpoint = paddle_saved(tmp_path, "model.pd", model, lambda state: {"model": state, "epoch": 99})
    else:
        checkpoint = paddle_saved(tmp_path, "model.pdparams", model)
    converted = convert(checkpoint.tensors, format=checkpoint.format)
    assert (converted.layout, converted.preprocess) == (layout, preprocess)
    assert converted.changes == SHAPE | PLAIN | changes
    expected = model(paddle.to_tensor(IMAGE.astype("float32"))).numpy()
    assert deviation(logits_of(converted), expected) < 1e-5
    if case == "huge":  # the case would pass with a wrong epsilon unless it really counts here
        wrong = create_model("vit_ti16", **{**OPTIONS, **converted.changes, "epsilon": 1e-6})
        load_weights(wrong, converted.tensors)
        assert deviation(wrong(paddle.to_tensor(IMAGE.astype("float32"))).numpy(), expected) > 1e-3


def test_a_paddle_state_dict_in_float16(tmp_path):
    model = passl_model(13, **WITH_BIAS)
    half = {name: value.astype("float16") for name, value in model.state_dict().items()}
    paddle.save(half, str(tmp_path / "half.pdparams"))
    converted = convert(read_checkpoint(tmp_path / "half.pdparams").tensors, format="pdparams")
    for name, parameter in model.state_dict().items():
        parameter.set_value(half[name].astype("float32"))
    assert deviation(logits_of(converted), model(paddle.to_tensor(IMAGE.astype("float32"))).numpy()) < 1e-5


# ---------------------------------------------------------------- with Token Merging


@pytest.mark.parametrize("case", [*ORIGINALS, "AugReg"])
def test_token_merging_on_converted_weights(case):
    """The merged forward of the reference, in float64, on the converted weights."""
    original = augreg_like(10) if case == "AugReg" else ORIGINALS[case][0]
    converted = convert(original.tensors)
    weights = {name: tensor.astype("float64") for name, tensor in converted.tensors.items()}
    r = (5, 4, 3)
    for seed in range(20):  # until no merge hangs on rounding
        image = np.random.default_rng(seed).normal(size=IMAGE.shape)
        expected = reference.vit_forward(weights, image, foreign.HEADS, r)
        if expected.margin > 1e-4:
            break
    assert expected.margin > 1e-4
    model = create_model("vit_ti16", **{**OPTIONS, **converted.changes})
    load_weights(model, converted.tensors)
    apply_patch(model)
    model.r = list(r)
    found = model(paddle.to_tensor(image.astype("float32"))).numpy()
    assert deviation(found, expected.logits) < 1e-4


# ---------------------------------------------------------------- these tests can fail


@pytest.mark.parametrize("harm", ["attn.proj not transposed", "keys before queries", "heads before parts"])
def test_a_wrong_conversion_changes_the_logits(harm):
    """Mistakes that keep every shape. The comparison above must not be blind to them."""
    original = timm_like(1)
    converted = convert(original.tensors)
    for i in range(foreign.DEPTH):
        if harm == "attn.proj not transposed":
            converted.tensors[f"blocks.{i}.attn.proj.weight"] = original.tensors[
                f"blocks.{i}.attn.proj.weight"
            ]
            continue
        weight = converted.tensors[f"blocks.{i}.attn.qkv.weight"]
        if harm == "keys before queries":
            q, k, v = np.split(weight, 3, axis=1)
            weight = np.concatenate([k, v, q], axis=1)
        else:  # each head's three parts together
            weight = weight.reshape(24, 3, 3, 8).transpose(0, 2, 1, 3).reshape(24, 72)
        converted.tensors[f"blocks.{i}.attn.qkv.weight"] = np.ascontiguousarray(weight)
    assert deviation(logits_of(converted), original.forward(IMAGE)) > 0.05


def test_every_preset_that_is_named_exists():
    from tome_core.checkpoints.origins import preprocess_of

    named = {
        preprocess_of(layout, family, {"image_size": size})[0]
        for layout in LAYOUTS
        for family in (None, "vit", "deit", "mae")
        for size in (224, 384)
    }
    assert named <= set(PRESETS)
