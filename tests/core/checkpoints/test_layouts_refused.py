"""What `convert` recognises, and what it refuses to guess."""

import re

import numpy as np
import paddle
import pytest

from tome_core import create_model
from tome_core.checkpoints.layouts import convert
from tome_core.checkpoints.loading import load_weights
from tome_core.errors import CheckpointError

from .foreign import DEPTH, OPTIONS, WIDTH, augreg_like, timm_like, torchvision_like
from .passl_models import passl_model


def paddle_tensors(**options):
    model = passl_model(1, qkv_bias=True, epsilon=1e-6, **options)
    return {name: value.numpy() for name, value in model.state_dict().items()}


def refused(tensors, *words, **options):
    with pytest.raises(CheckpointError) as caught:
        convert(tensors, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def ones(*shape):
    return np.ones(shape, "f4")


# ---------------------------------------------------------------- order of the Linear weights


@pytest.mark.parametrize("format", [None, "safetensors", "torch-zip", "torch-legacy"])
def test_torch_order_is_recognised_in_torch_and_neutral_containers(format):
    assert convert(timm_like().tensors, format=format).layout == "timm"


@pytest.mark.parametrize("format", [None, "safetensors", "pdparams"])
def test_paddle_order_is_recognised_in_paddle_and_neutral_containers(format):
    assert convert(paddle_tensors(), format=format).layout == "passl"


def test_every_linear_weight_is_transposed_once_and_nothing_else():
    tensors = timm_like(distilled=True).tensors
    found = convert(tensors).tensors
    linear = {"qkv", "proj", "fc1", "fc2", "head", "head_dist"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        turned = name.split(".")[-2:-1] and name.split(".")[-2] in linear and "patch_embed" not in name
        turned = turned and name.endswith(".weight")
        np.testing.assert_array_equal(found[name], tensor.T if turned else tensor)
        assert found[name].flags.c_contiguous
    kept = convert(paddle_tensors()).tensors
    for name, tensor in paddle_tensors().items():
        np.testing.assert_array_equal(kept[name], tensor)


@pytest.mark.parametrize("odd", ["blocks.1.mlp.fc1.weight", "blocks.2.attn.qkv.weight", "head.weight"])
def test_a_mixture_of_orders_is_refused(odd):
    tensors = timm_like().tensors
    tensors[odd] = tensors[odd].T
    refused(tensors, "[out, in]", "[in, out]", odd, "by halves")


def test_a_container_that_contradicts_the_shapes_is_refused_unless_the_layout_is_given():
    tensors = timm_like().tensors
    refused(tensors, "pdparams", "[out, in]", "square", format="pdparams")
    assert convert(tensors, "timm", format="pdparams").layout == "timm"
    refused(paddle_tensors(), "torch-zip", "[in, out]", format="torch-zip")
    assert convert(paddle_tensors(), "paddleclas", format="torch-zip").layout == "paddleclas"
    # "deit" does not say whose DeiT it is
    refused(tensors, "square", layout="deit", format="pdparams")


# ---------------------------------------------------------------- a layout that is asked for


@pytest.mark.parametrize(
    ("layout", "tensors", "word"),
    [
        ("torchvision", timm_like().tensors, "keys are timm's"),
        ("timm", torchvision_like().tensors, "keys are torchvision's"),
        ("swag", torchvision_like().tensors, "keys are torchvision's"),
        ("passl", augreg_like().tensors, "keys are augreg-npz's"),
        ("passl", timm_like().tensors, "keeps Linear weights [in, out]"),
        ("timm", paddle_tensors(), "keeps Linear weights [out, in]"),
        ("deit", timm_like(distilled=True).tensors, "dist_token"),
        ("deit", timm_like(pooled=True).tensors, "fc_norm"),
        ("deit-distilled", timm_like().tensors, "no dist_token"),
        ("mae", timm_like(distilled=True).tensors, "dist_token"),
        ("paddleclas", paddle_tensors(representation_size=24), "head0"),
        ("keras", timm_like().tensors, "choose one of timm"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(layout, tensors, word):
    refused(tensors, layout, word, layout=layout)


def test_a_layout_that_fits_decides_the_preprocessing():
    tensors = timm_like().tensors
    assert convert(tensors, "deit").preprocess == "deit"
    assert convert(tensors, family="deit").preprocess == "deit"
    assert convert(tensors, family="mae").preprocess == "mae"
    assert convert(tensors, "mae").changes["global_pool"] is False
    assert convert(paddle_tensors(), family="deit").preprocess == "deit"
    assert convert(torchvision_like().tensors, family="vit").preprocess == "torchvision"


# ---------------------------------------------------------------- other architectures


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("blocks.0.ls1.gamma", "LayerScale"),
        ("blocks.0.gamma_2", "LayerScale"),
        ("blocks.0.attn.q_norm.weight", "qk-norm"),
        ("reg_token", "register tokens"),
        ("norm_pre.weight", "LayerNorm before the blocks"),
        ("patch_embed.norm.weight", "LayerNorm after the patch embedding"),
        ("patch_embed.backbone.conv.weight", "convolutional stem"),
        ("attn_pool.q.weight", "attention pooling"),
        ("blocks.0.attn.relative_position_bias_table", "relative positions"),
        ("blocks.0.attn.q_bias", "BEiT"),
        ("blocks.0.mlp.w12.weight", "gated MLPs"),
        ("blocks.0.mlp.norm.weight", "LayerNorm inside attention or MLP"),
        ("head.0.running_mean", "batch normalisation"),
        ("projection.weight", "projection.weight"),
    ],
)
def test_another_architecture_is_refused_by_name(key, what):
    refused(timm_like().tensors | {key: ones(WIDTH)}, what, key)


def test_other_stems_and_pools_of_torchvision_and_google_are_refused():
    tensors = torchvision_like().tensors
    refused(tensors | {"conv_proj.conv_last.weight": ones(WIDTH, 8, 1, 1)}, "convolutional stem")
    refused(augreg_like().tensors | {"conv_root/kernel": ones(7, 7, 3, 64)}, "convolutional stem")
    refused(augreg_like().tensors | {"MAPHead_0/probe": ones(1, 1, WIDTH)}, "attention pooling")
    refused(augreg_like().tensors | {"step": ones(1)}, "step")


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({"conv1.weight": ones(64, 3, 7, 7), "layer1.0.conv1.weight": ones(64, 64, 1, 1)}, "conv1.weight"),
        ({"layers.0.blocks.0.norm1.weight": ones(96)}, "Swin"),
        ({"vit.embeddings.cls_token": ones(1, 1, 8)}, "vit.embeddings.cls_token"),
        ({}, "none of a known layout"),
    ],
)
def test_no_vision_transformer_at_all(tensors, word):
    refused(tensors, word)


def test_no_class_token_or_no_position_for_it():
    tensors = timm_like().tensors
    refused({k: v for k, v in tensors.items() if k != "cls_token"}, "lacks cls_token")
    refused(tensors | {"pos_embed": tensors["pos_embed"][:, 1:]}, "no_embed_class")
    refused(tensors | {"pos_embed": tensors["pos_embed"][:, :31]}, "30 patch positions form no square")


# ---------------------------------------------------------------- damaged or hostile contents


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"head.weight": np.ones((7, WIDTH), "i1")}, "int8"),
        ({"head.weight": ones(0, WIDTH)}, "empty"),
        ({"pos_embed": ones(37, WIDTH)}, "pos_embed is [37, 24]"),
        ({"patch_embed.proj.weight": ones(WIDTH, 1, 8, 8)}, "RGB"),
        ({"patch_embed.proj.weight": ones(WIDTH, 3, 8, 16)}, "square patches"),
        ({"fc_norm.weight": ones(WIDTH)}, "both norm and fc_norm"),
        ({"dist_token": ones(1, 1, WIDTH), "head0.weight": ones(WIDTH, WIDTH)}, "distillation token"),
        ({"pre_logits.fc.bias": ones(5), "head0.bias": ones(5)}, "head0.bias twice"),
        ({"blocks.7.norm1.bias": ones(WIDTH)}, "none numbered 3"),
        ({"blocks.00.norm1.bias": ones(WIDTH)}, "none numbered 3"),
        ({"blocks.99999999999999999999.norm1.bias": ones(WIDTH)}, "no plain ViT"),
        ({"norm.bias": np.full(WIDTH, 1e300)}, "too large for float32"),
    ],
)
def test_strange_contents_are_refused(change, word):
    refused(timm_like().tensors | change, word)


@pytest.mark.parametrize(
    ("name", "array", "word"),
    [
        ("query/kernel", ones(WIDTH, WIDTH), "2 axes, not 3"),
        ("out/kernel", ones(WIDTH, WIDTH), "2 axes, not 3"),
        ("key/kernel", ones(WIDTH, 2, 12), "differ in their number of heads"),
        ("key/kernel", ones(WIDTH, 3, 4), "make no blocks.0.attn.qkv.weight"),
        ("value/bias", None, "make no blocks.0.attn.qkv.bias"),
    ],
)
def test_strange_attention_in_an_npz_is_refused(name, array, word):
    tensors = augreg_like().tensors
    name = f"Transformer/encoderblock_0/MultiHeadDotProductAttention_1/{name}"
    tensors = {k: v for k, v in tensors.items() if k != name} | ({} if array is None else {name: array})
    refused(tensors, word)


def test_a_missing_block_weight_is_named_when_the_model_is_loaded():
    tensors = timm_like().tensors
    del tensors["blocks.1.attn.qkv.bias"]
    converted = convert(tensors)
    model = create_model("vit_ti16", **{**OPTIONS, **converted.changes})
    before = model.norm.weight.numpy()
    with pytest.raises(CheckpointError, match=re.escape("1 missing: blocks.1.attn.qkv.bias")):
        load_weights(model, converted.tensors)
    np.testing.assert_array_equal(model.norm.weight.numpy(), before)


# ---------------------------------------------------------------- MAE before fine-tuning


@pytest.mark.parametrize("order", ["torch", "paddle"])
def test_a_pretraining_file_gives_its_encoder(order):
    tensors = timm_like().tensors if order == "torch" else paddle_tensors()
    encoder = {name: t for name, t in tensors.items() if not name.startswith("head")}
    decoder = {"mask_token": ones(1, 1, 16), "decoder_pos_embed": ones(1, 37, 16)}
    decoder |= {"decoder_pred.weight": ones(192, 16), "decoder_pred.bias": ones(192)}
    decoder |= {"decoder_blocks.0.attn.qkv.weight": ones(48, 16), "decoder_norm.weight": ones(16)}
    converted = convert(encoder | decoder)
    assert (converted.layout, converted.preprocess) == ("mae", "mae")
    assert converted.tensors.keys() == encoder.keys()
    assert "num_classes" not in converted.changes and converted.changes["global_pool"] is False
    assert any("pre-training" in note for note in converted.notes)


# ---------------------------------------------------------------- options


def test_the_mlp_width_survives_the_ratio():
    """PASSL's ViT_g, ViT_G and ViT_6B, and a pair whose quotient is rounded down: 7 * (61 / 7) < 61."""
    for width, hidden in ((1408, 6144), (1664, 8192), (2320, 11495), (7, 61)):
        tensors = timm_like().tensors
        blocks = {f"blocks.{i}.mlp.fc1.bias": ones(hidden) for i in range(DEPTH)}
        tensors |= blocks | {"pos_embed": np.ones((1, 37, width), "f4")}
        for i in range(DEPTH):
            tensors[f"blocks.{i}.mlp.fc1.weight"] = ones(hidden, 8)
        ratio = convert(tensors).changes["mlp_ratio"]
        assert int(width * ratio) == hidden


@pytest.mark.parametrize("order", ["torch", "paddle"])
def test_the_odd_small_model_of_paddleclas_and_old_timm(order):
    """Its scale of the scores, heads and epsilon follow from its shape, which no other model has."""
    state = {"pos_embed": ones(1, 197, 768), "cls_token": ones(1, 1, 768)}
    state |= {"patch_embed.proj.weight": ones(768, 3, 16, 16), "head.bias": ones(1000)}
    state |= {f"blocks.{i}.mlp.fc1.bias": ones(2304) for i in range(8)}
    state["blocks.0.mlp.fc1.weight"] = ones(2304, 768) if order == "torch" else ones(768, 2304)
    converted = convert(state)
    assert converted.layout == ("timm" if order == "torch" else "paddleclas")
    odd = {"num_heads": 8, "qk_scale": 768**-0.5, "epsilon": 1e-5, "qkv_bias": False, "mlp_ratio": 3.0}
    assert {name: converted.changes[name] for name in odd} == odd
    assert convert(state | {"blocks.0.attn.qkv.bias": ones(2304)}).changes.keys().isdisjoint({"qk_scale"})


def test_the_notes_say_where_another_origin_looks_the_same():
    assert any("--preprocess swag" in note for note in convert(torchvision_like().tensors).notes)
    swag = torchvision_like(swag=True, mlp=("linear_1", "linear_2")).tensors
    assert convert(swag).notes == convert(timm_like().tensors).notes == ()
    paddle_file = paddle_tensors()
    assert any("--weights-layout paddleclas" in note for note in convert(paddle_file).notes)
    assert not any("paddleclas" in note for note in convert(paddle_file, "passl").notes)
    assert not any("paddleclas" in note for note in convert(paddle_file, family="deit").notes)
    assert convert(paddle_tensors(representation_size=24)).notes == ()  # only PASSL has head0


def test_converted_weights_build_a_model_that_runs():
    converted = convert(timm_like().tensors)
    model = create_model("vit_ti16", **{**OPTIONS, **converted.changes})
    load_weights(model, converted.tensors)
    assert model(paddle.zeros([1, 3, 48, 48])).shape == [1, 7]
