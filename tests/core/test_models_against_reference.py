"""Whole forward passes of every family, patched and not, against the numpy reference."""

import numpy as np
import paddle
import pytest

from tests import reference
from tests.tiny_models import (
    FAMILIES,
    TOKENS,
    case_away_from_ties,
    random_image,
    reference_forward,
    tiny_model,
)
from tome_core.patch import apply_patch
from tome_core.schedule import parse_r

every_family = pytest.mark.parametrize("family", list(FAMILIES))


def logits_close(actual, expected):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=2e-4, atol=2e-4)


@every_family
def test_without_merging(family):
    model, image = tiny_model(family, seed=1), random_image(1)
    expected = reference_forward(model, image, [0, 0, 0])
    assert expected.logits.shape == (2, 7) and np.abs(expected.logits).max() > 0.3
    logits_close(model(paddle.to_tensor(image)), expected.logits)


@every_family
@pytest.mark.parametrize("prop_attn", [True, False])
@pytest.mark.parametrize("r", [1, 6, [9, 0, 4], [0, 11], (8, -1.0), (6, 1.0), 1000], ids=str)
def test_with_merging(family, prop_attn, r):
    r_per_block = parse_r(r, 3)
    model, image, expected = case_away_from_ties(family, r_per_block, prop_attn)
    patched = apply_patch(model, prop_attn=prop_attn, trace_source=True)
    patched.r = r
    logits = patched(paddle.to_tensor(image))
    source = patched.tome.source
    np.testing.assert_array_equal(source.numpy(), expected.source)
    assert source.dtype == paddle.int32 and source.shape == [2, TOKENS[family]]
    logits_close(logits, expected.logits)


@every_family
def test_one_block(family):
    model, image, expected = case_away_from_ties(family, [7])
    patched = apply_patch(model, trace_source=True)
    for r in (7, [7], (7, 0.5)):
        patched.r = r
        logits_close(patched(paddle.to_tensor(image)), expected.logits)
        np.testing.assert_array_equal(patched.tome.source.numpy(), expected.source)


@every_family
def test_proportional_attention_starts_after_the_first_merge(family):
    """Sizes are all one until then: a model that merges in its last block only cannot tell the difference."""
    model, image, with_sizes = case_away_from_ties(family, [0, 0, 9], prop_attn=True)
    without = reference_forward(model, image, [0, 0, 9], prop_attn=False)
    np.testing.assert_array_equal(with_sizes.logits, without.logits)
    outputs = {}
    for prop_attn in (True, False):
        patched = apply_patch(model, prop_attn=prop_attn)
        patched.r = [0, 0, 9]
        outputs[prop_attn] = patched(paddle.to_tensor(image)).numpy()
    np.testing.assert_allclose(outputs[True], outputs[False], rtol=1e-6, atol=1e-6)


@every_family
def test_images_of_a_batch_do_not_see_each_other(family):
    model, image, expected = case_away_from_ties(family, [6, 6, 6])
    patched = apply_patch(model)
    patched.r = 6
    for row in range(2):
        logits_close(patched(paddle.to_tensor(image[row : row + 1])), expected.logits[row : row + 1])


def test_mae_pooling_divides_by_all_patches_not_by_the_tokens_left():
    """fc_norm hides a constant factor unless the features are as small as its epsilon, so make them small."""
    model, image = tiny_model("mae", seed=0), random_image(0)
    into_the_stream = ("cls_token", "pos_embed", "patch_embed.proj", "attn.proj", "mlp.fc2")
    for name, parameter in model.state_dict().items():
        if any(part in name for part in into_the_stream):
            parameter.set_value(parameter * 1e-3)
    expected = reference_forward(model, image, [9, 9, 5])
    assert expected.margin > 1e-5
    patched = apply_patch(model)
    patched.r = [9, 9, 5]
    logits_close(patched(paddle.to_tensor(image)), expected.logits)


# ---------------------------------------------------------------- gradients through a whole patched model


def directional_difference(loss, tensor, direction, step=1e-6):
    """Change of `loss()` along `direction`, moving `tensor` in place and back."""
    start = tensor.numpy()
    values = []
    for sign in (1, -1):
        tensor.set_value(paddle.to_tensor(start + sign * step * direction))
        values.append(loss().item())
    tensor.set_value(paddle.to_tensor(start))
    return (values[0] - values[1]) / (2 * step)


@pytest.fixture
def float64_models():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


@every_family
def test_gradients_of_pixels_and_weights(family, float64_models):
    r_per_block = [9, 5]
    model, image, expected = case_away_from_ties(family, r_per_block, margin=5e-4)
    model = apply_patch(model, trace_source=True)
    model.r = r_per_block
    rng = np.random.default_rng(0)
    pixels = paddle.to_tensor(image.astype("float64"), stop_gradient=False)
    weights = paddle.to_tensor(rng.normal(size=(2, 7)))

    def loss():
        value = (model(pixels) * weights).sum()
        np.testing.assert_array_equal(model.tome.source.numpy(), expected.source)  # no decision may flip
        return value

    loss().backward()
    tensors = {"pixels": pixels, **dict(model.named_parameters())}
    gradients = {name: tensor.grad.numpy() for name, tensor in tensors.items() if tensor.grad is not None}
    assert len(gradients) == len(tensors)
    for name, tensor in tensors.items():
        direction = rng.normal(size=tensor.shape)
        with paddle.no_grad():
            measured = directional_difference(loss, tensor, direction)
        np.testing.assert_allclose((gradients[name] * direction).sum(), measured, rtol=1e-5, atol=1e-7)
    assert np.abs(gradients["pixels"]).max() > 1e-4


def test_reference_patch_embedding_and_merging_agree_on_a_hand_made_case():
    """The reference itself: two equal patches merge, and pooling weights them by size."""
    weights = {"patch_embed.proj.weight": np.ones((2, 3, 1, 1)), "patch_embed.proj.bias": np.zeros(2)}
    image = np.arange(12.0).reshape(1, 3, 2, 2)
    np.testing.assert_array_equal(reference._patch_embed(weights, image)[0, :, 0], [12, 15, 18, 21])
    metric = np.array([[[1.0, 0], [0, 1], [1, 0], [1, 0], [0, 1]]])  # class, then patches b a a b
    matching = reference.bipartite_soft_matching(metric, 1, class_token=True)
    assert matching.group.tolist() == [[0, 2, 3, 3, 1]]
    merged, size = reference.merge_wavg(matching, metric)
    assert size[0, :, 0].tolist() == [1, 1, 1, 2]
    np.testing.assert_array_equal((merged * size)[:, 1:].sum(axis=1), metric[:, 1:].sum(axis=1))
