"""Patched models train: gradients are the reference's, in dygraph and traced; unasked tracking is free."""

from collections import Counter

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle.static import InputSpec

from tests import reference
from tests.tiny_models import FAMILIES, NUM_HEADS, case_away_from_ties, random_image, tiny_model, weights_of
from tome_core.errors import PatchError
from tome_core.matching import bipartite_soft_matching
from tome_core.patch import apply_patch

every_family = pytest.mark.parametrize("family", list(FAMILIES))
every_structure = pytest.mark.parametrize("family", ["vit", "deit_distilled", "mae"])  # DeiT is a ViT
LABELS = np.array([1, 4])


def training_loss(model, image):
    """Cross-entropy, summed over the heads: a distilled model gives both of them while it trains."""
    out = model(image)
    heads = out if isinstance(out, list | tuple) else [out]
    return sum(F.cross_entropy(head, paddle.to_tensor(LABELS)) for head in heads)


def gradients(model, image):
    """(loss, name -> gradient), by way of `model`, which may be traced."""
    loss = training_loss(model, paddle.to_tensor(image))
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    found = {name: gradient.numpy() for name, gradient in found.items()}
    model.clear_gradients()
    return loss.item(), found


def patched(family, r, depth=3, seed=0, **options):
    model = apply_patch(tiny_model(family, seed, depth), **options)
    model.r = r
    model.train()
    return model


def program_of(model):
    """The program that `to_static` traces of a model on 48 x 48 images."""
    spec = [InputSpec([None, 3, 48, 48], "float32")]
    return paddle.jit.to_static(model, input_spec=spec, full_graph=True).forward.concrete_program.main_program


def names(program):
    return [op.name().removeprefix("pd_op.") for op in program.global_block().ops]


# ---------------------------------------------------------------- gradients


@every_family
@pytest.mark.parametrize("prop_attn", [True, False])
def test_gradients_are_those_of_the_reference_with_its_decisions_held_fixed(family, prop_attn):
    """Finite differences of the numpy loops, which share nothing with the product, in random directions."""
    r_per_block = [9, 0, 5]
    model, image, expected = case_away_from_ties(family, r_per_block, prop_attn)
    weights = weights_of(model)
    model = apply_patch(model, prop_attn=prop_attn)
    model.r = r_per_block
    model.train()
    loss, found = gradients(model, image)

    def reference_loss(weights):
        pixels = image.astype("float64")
        forward = reference.vit_forward(
            weights, pixels, NUM_HEADS, r_per_block, prop_attn, matchings=expected.matchings
        )
        return sum(reference.cross_entropy(head, LABELS) for head in forward.heads)

    assert loss == pytest.approx(reference_loss(weights), rel=1e-5)
    rng = np.random.default_rng(0)
    step = 1e-5
    for name, value in weights.items():
        direction = rng.normal(size=value.shape)
        direction /= np.linalg.norm(direction)
        up, down = (reference_loss({**weights, name: value + sign * step * direction}) for sign in (1, -1))
        along = (found[name] * direction).sum()
        allowed = 1e-4 * max(1e-2, float(np.linalg.norm(found[name])))  # the product computes in float32
        assert along == pytest.approx((up - down) / (2 * step), abs=allowed), name
        if not name.endswith("qkv.bias"):  # softmax does not see the keys' bias
            assert np.abs(found[name]).max() > 1e-6, name


@every_structure
@pytest.mark.parametrize("r", [7, (6, -1.0)], ids=str)
def test_a_traced_model_has_the_gradients_of_the_dygraph_model(family, r):
    image = random_image(0)
    loss, expected = gradients(patched(family, r), image)
    traced = paddle.jit.to_static(patched(family, r), full_graph=True)
    for batch in (image, np.concatenate([image, image])[:2]):
        traced_loss, found = gradients(traced, batch)
        assert traced_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * np.abs(gradient).max())


def test_a_traced_model_trains_on_batches_of_any_size():
    spec = [InputSpec([None, 3, 48, 48], "float32")]
    model = paddle.jit.to_static(patched("vit", 7), input_spec=spec, full_graph=True)
    same = patched("vit", 7)
    for size in (1, 3, 2):
        image = paddle.to_tensor(random_image(size, batch=size))
        for each in (model, same):
            each(image).square().mean().backward()
        for one, other in zip(model.parameters(), same.parameters(), strict=True):
            scale = other.grad.abs().max().item()
            np.testing.assert_allclose(one.grad.numpy(), other.grad.numpy(), rtol=1e-3, atol=1e-5 * scale)
    assert model.forward.get_traced_count() == 1


def test_decisions_carry_no_gradient():
    metric = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 12, 5)), stop_gradient=False)
    match = bipartite_soft_matching(metric, 3, class_token=True)
    assert match.label.stop_gradient and match.matrix.stop_gradient


# ---------------------------------------------------------------- tracing


def test_a_traced_model_refuses_another_r_instead_of_keeping_the_old_one():
    image = paddle.to_tensor(random_image(0))
    model = paddle.jit.to_static(patched("vit", 4), full_graph=True)
    model.r = 5  # nothing has been traced yet
    before = model(image).numpy()
    model.r = [5, 5, 5]  # the same schedule
    for change in (lambda: setattr(model, "r", 9), lambda: apply_patch(model, prop_attn=False)):
        with pytest.raises(PatchError, match="rollback"):
            change()
    np.testing.assert_array_equal(model(image).numpy(), before)

    model.forward.rollback()
    model.r = 9
    paddle.jit.to_static(model, full_graph=True)
    np.testing.assert_allclose(model(image).numpy(), patched("vit", 9)(image).numpy(), rtol=1e-5, atol=1e-5)


@every_structure
def test_a_patched_model_that_merges_nothing_traces_to_the_original_program(family):
    original = tiny_model(family)
    original.train()
    assert names(program_of(patched(family, 0))) == names(program_of(original))


@pytest.mark.parametrize(
    "family, r",
    [("vit", [6, 5, 4]), ("vit", [0, 9, 0]), ("deit_distilled", [6, 5, 4]), ("mae", [6, 5, 4])],
    ids=str,
)
def test_source_tracking_costs_nothing_unless_asked_for(family, r):
    merging = sum(each > 0 for each in r)
    model = patched(family, r)
    model(paddle.to_tensor(random_image(0)))
    assert model.tome.source is None and all(source is None for source in model.tome.sources)
    counts = Counter(names(program_of(model)))
    # One choice of a destination for each merging block, and no map is followed.
    assert counts["argmax"] == merging and counts["take_along_axis"] == 0

    model = patched(family, r, trace_source=True)
    model(paddle.to_tensor(random_image(0)))
    assert model.tome.source is not None
    tracking = Counter(names(program_of(model)))
    tracking.subtract(counts)
    more = {
        name: count for name, count in tracking.items() if count and name not in ("data", "full_int_array")
    }
    assert more["argmax"] == merging and more.get("take_along_axis", 0) == merging - 1
    assert min(more.values()) > 0


# ---------------------------------------------------------------- mixed precision
# Paddle's auto_cast does nothing in dygraph on a CPU. In a traced program it acts; bfloat16 runs, float16 has
# no matrix product there.


class Cast(paddle.nn.Layer):
    """Runs a layer, or a function, under auto_cast, from within what is traced."""

    def __init__(self, inner, level, dtype):
        super().__init__()
        self.inner, self.level, self.dtype = inner, level, dtype

    def forward(self, x):
        with paddle.amp.auto_cast(level=self.level, dtype=self.dtype):
            y = self.inner(x)
        return y


def operands(program, *wanted):
    """dtypes of the first operands of the named operators."""
    return {
        str(op.operand_source(0).dtype).split(".")[-1].lower()
        for op in program.global_block().ops
        if op.name().removeprefix("pd_op.") in wanted
    }


@every_structure
def test_bfloat16_training_follows_float32(family):
    losses = {}
    for mixed in (False, True):
        model = patched(family, [6, 0, 5])
        net = paddle.jit.to_static(Cast(model, "O1", "bfloat16") if mixed else model, full_graph=True)
        optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
        losses[mixed] = []
        for _ in range(4):
            loss = training_loss(net, paddle.to_tensor(random_image(0)))
            loss.backward()
            assert all(paddle.isfinite(parameter.grad).all() for parameter in model.parameters())
            optimizer.step()
            optimizer.clear_grad()
            losses[mixed].append(loss.item())
    assert losses[True][-1] < 0.7 * losses[True][0]
    assert losses[True] != losses[False]  # it was not float32
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.1)


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_under_auto_cast_products_are_half_and_decisions_are_not(level):
    program = program_of(Cast(patched("vit", 6), level, "bfloat16"))
    assert operands(program, "argmax", "argsort", "max", "equal", "where", "one_hot") <= {
        "float32",
        "int64",
        "bool",
    }
    linear = [op for op in program.global_block().ops if op.name() == "pd_op.matmul"]
    square = {
        str(op.result(0).dtype).split(".")[-1].lower() for op in linear if op.result(0).shape[-2:] == [37, 37]
    }
    assert square == {"bfloat16", "float32"}  # attention's scores and the similarity of the first block


class Grouped(paddle.nn.Layer):
    """metric -> the group of each token."""

    def forward(self, metric):
        return bipartite_soft_matching(metric, 120, class_token=True).group


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_under_auto_cast_more_tokens_than_half_precision_can_count_are_matched_exactly(level, dtype):
    metric = np.random.default_rng(0).normal(size=(1, 601, 16)).astype("float32")
    expected = reference.bipartite_soft_matching(metric.astype("float64"), 120, class_token=True)
    assert expected.margin > 1e-6
    spec = [InputSpec([None, 601, 16], "float32")]
    net = paddle.jit.to_static(Cast(Grouped(), level, dtype), input_spec=spec, full_graph=True)
    np.testing.assert_array_equal(net(paddle.to_tensor(metric)).numpy(), expected.group)
