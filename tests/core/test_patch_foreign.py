"""Models that others built: what is patched computes what the algorithm says, what cannot be is refused."""

import copy

import numpy as np
import paddle
import pytest
from paddle.distributed.fleet.utils import recompute

from tests import foreign_models as foreign
from tests import reference
from tests.core.test_tracing import WithSource, check_traced
from tests.tiny_models import random_image, randomise
from tome_core.errors import PatchError
from tome_core.folding import folded
from tome_core.patch import apply_patch

HEADS = foreign.HEADS
MODELS = {
    "passl": foreign.PasslViT,
    "passl-head0": lambda: foreign.PasslViT(representation_size=10),
    "passl-huge": lambda: foreign.PasslViT(qkv_bias=False, qk_scale=0.2),
    "passl-mae": foreign.PasslMAE,
    "passl-mae-class": lambda: foreign.PasslMAE(global_pool=False),
    "passl-distilled": foreign.PasslDistilled,
    "other-names-distilled": foreign.OtherNameDistilled,
    "passl-dino": foreign.Dino,
    "embed-then-concat": foreign.EmbedThenConcat,
    "timm-qk-norm": foreign.TimmViT,
    "timm-no-class-token": foreign.NoClassToken,
    "late-class-token": foreign.LateClassToken,
    "dinov2-chunks": foreign.ChunkedDinoV2,
}
every_model = pytest.mark.parametrize("name", list(MODELS))
SPECIAL = {"passl-distilled": 2, "other-names-distilled": 2, "timm-no-class-token": 0, "late-class-token": 0}
READOUT = {"passl-mae": "mean", "dinov2-chunks": "mean"}
READOUT |= {"timm-no-class-token": "tokens", "late-class-token": "tokens"}


def build(name, seed=0):
    model = MODELS[name]()
    randomise(model, seed)
    model.eval()
    return model


def run(model, image):
    return model(paddle.to_tensor(image)).numpy()


# ---------------------------------------------------------------- against the reference


def blocks_of(model):
    if hasattr(model, "layers"):
        return [block for chunk in model.layers for block in chunk if hasattr(block, "attn")]
    return list(model.blocks)


def plain_weights(model):
    """float64, under timm's names; LayerScale and an odd scale multiplied into the weights they act on."""
    state = {name: value.numpy().astype("float64") for name, value in model.state_dict().items()}
    weights = {name: value for name, value in state.items() if not name.startswith(("blocks", "layers"))}
    for old, new in (("class_token", "cls_token"), ("distillation_token", "dist_token")):
        if old in weights:
            weights[new] = weights.pop(old)
    for index, block in enumerate(blocks_of(model)):
        own = {name: value.numpy().astype("float64") for name, value in block.state_dict().items()}
        for branch, layer in ((1, "attn.proj"), (2, "mlp.fc2")):
            gamma = own.get(f"ls{branch}.gamma", own.get(f"gamma_{branch}", 1.0))
            own[f"{layer}.weight"] = own[f"{layer}.weight"] * gamma
            own[f"{layer}.bias"] = own[f"{layer}.bias"] * gamma
        width = own["attn.proj.weight"].shape[0]
        scale = getattr(block.attn, "scale", None) or block.attn.scales
        for part in ("weight", "bias"):
            if f"attn.qkv.{part}" in own:
                own[f"attn.qkv.{part}"][..., :width] *= scale / (width // HEADS) ** -0.5
        weights |= {f"blocks.{index}.{name}": value for name, value in own.items()}
    return weights


def attention(weights, name, x, size):
    """The reference's, with norms of each head's queries and keys."""
    batch, tokens, channels = x.shape
    q, k, v = np.split(reference._linear(weights, f"{name}.qkv", x), 3, axis=-1)
    q, k, v = (part.reshape(batch, tokens, HEADS, -1).transpose(0, 2, 1, 3) for part in (q, k, v))
    if f"{name}.q_norm.weight" in weights:
        q = reference._layer_norm(weights, f"{name}.q_norm", q, 1e-6)
        k = reference._layer_norm(weights, f"{name}.k_norm", k, 1e-6)
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]) + np.log(size)[:, None, :, 0][:, :, None]
    out = (reference._softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, channels)
    return reference._linear(weights, f"{name}.proj", out), k.mean(axis=1)


def general_forward(name, weights, image, r_per_block, prop_attn):
    """What the reference's vit_forward has no case for: no class token, qk-norm, other readouts."""
    x = reference._patch_embed(weights, image)
    class_token = SPECIAL.get(name, 1) == 1
    if class_token:
        x = np.concatenate([np.repeat(weights["cls_token"], len(x), axis=0), x], axis=1)
    x = x + weights["pos_embed"]
    size, source, matchings = np.ones_like(x[:, :, :1]), None, []
    for index, r in enumerate(r_per_block):
        block = f"blocks.{index}"
        normed = reference._layer_norm(weights, f"{block}.norm1", x, 1e-6)
        y, metric = attention(weights, f"{block}.attn", normed, size if prop_attn else np.ones_like(size))
        matching = reference.bipartite_soft_matching(metric, r, class_token=class_token)
        x, size = reference.merge_wavg(matching, x + y, size)
        source = reference.merge_source(matching, source)
        matchings.append(matching)
        normed = reference._layer_norm(weights, f"{block}.norm2", x, 1e-6)
        hidden = reference._gelu(reference._linear(weights, f"{block}.mlp.fc1", normed))
        x = x + reference._linear(weights, f"{block}.mlp.fc2", hidden)
    patches = np.stack([tokens[groups] for tokens, groups in zip(x, source, strict=True)])
    normed = reference._layer_norm(weights, "norm", patches, 1e-6)
    if name == "timm-qk-norm":
        features = normed[:, 0]
    elif name == "dinov2-chunks":
        pooled = (x * size)[:, 1:].sum(axis=1) / foreign.PATCHES
        features = np.concatenate([normed[:, 0], pooled], axis=-1)
    elif name == "timm-no-class-token":
        features = normed.mean(axis=1)
    elif name == "late-class-token":
        features = reference._softmax(weights["cls_token"] @ normed.transpose(0, 2, 1)) @ normed
        features = features[:, 0]
    return reference.Forward(reference._linear(weights, "head", features), source, size, tuple(matchings))


def expected_forward(name, model, image, r_per_block, prop_attn=True):
    weights, image = plain_weights(model), image.astype("float64")
    if name in ("timm-qk-norm", "timm-no-class-token", "late-class-token", "dinov2-chunks"):
        return general_forward(name, weights, image, r_per_block, prop_attn)
    if name == "embed-then-concat":
        weights["pos_embed"] = np.pad(weights["pos_embed"], ((0, 0), (1, 0), (0, 0)))
    return reference.vit_forward(weights, image, HEADS, r_per_block, prop_attn)


def case_away_from_ties(name, r_per_block, prop_attn=True):
    for seed in range(50):
        model, image = build(name, seed), random_image(seed)
        expected = expected_forward(name, model, image, r_per_block, prop_attn)
        if expected.margin > 1e-4:
            return model, image, expected
    raise AssertionError("no seed is away from ties")


@every_model
@pytest.mark.parametrize("prop_attn", [True, False])
@pytest.mark.parametrize("r", [[0, 0, 0], [6, 6, 6], [9, 0, 4], [0, 11, 0], [40, 40, 40]], ids=str)
def test_against_the_reference(name, prop_attn, r):
    model, image, expected = case_away_from_ties(name, r, prop_attn)
    assert np.abs(expected.logits).max() > 0.1
    patched = apply_patch(model, prop_attn=prop_attn, trace_source=True)
    patched.r = r
    np.testing.assert_allclose(run(patched, image), expected.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(patched.tome.source.numpy(), expected.source)
    with folded(patched):
        np.testing.assert_allclose(run(patched, image), expected.logits, rtol=1e-4, atol=1e-4)


@every_model
def test_what_is_measured_of_a_model(name):
    layout = apply_patch(build(name)).tome.layout
    special = SPECIAL.get(name, 1)
    assert (layout.tokens, layout.special, layout.channels) == (
        foreign.PATCHES + special,
        special,
        foreign.DIM,
    )
    assert layout.readout == READOUT.get(name, "special")


def test_the_mean_is_over_all_patches_also_where_a_norm_hides_the_factor():
    """Features as small as fc_norm's epsilon, where a wrong divisor shows."""
    model = build("passl-mae")
    for name, parameter in model.state_dict().items():
        if any(part in name for part in ("cls_token", "pos_embed", "patch_embed.proj", "attn.proj", "fc2")):
            parameter.set_value(parameter * 1e-3)
    image = random_image(0)
    expected = expected_forward("passl-mae", model, image, [9, 9, 5])
    assert expected.margin > 1e-5
    apply_patch(model).r = [9, 9, 5]
    np.testing.assert_allclose(run(model, image), expected.logits, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- what stays as it was


@every_model
def test_r_zero_is_bit_for_bit_the_model_and_its_keys_stay(name):
    model, image = build(name), random_image(0)
    before, keys = run(model, image), list(model.state_dict())
    patched = apply_patch(model)
    assert patched is model and isinstance(model, type(build(name)))
    np.testing.assert_array_equal(run(model, image), before)
    model.r = 4
    assert not np.allclose(run(model, image), before)
    model.r = 0
    np.testing.assert_array_equal(run(model, image), before)
    assert list(model.state_dict()) == keys


@every_model
def test_examining_a_model_has_no_effect_on_it(name):
    model = build(name)
    model.train()
    model.blocks[0].eval() if hasattr(model, "blocks") else None
    modes = [layer.training for layer in model.sublayers(include_self=True)]
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    apply_patch(model)
    assert [layer.training for layer in model.sublayers(include_self=True)] == modes
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[key])


def test_a_model_that_draws_random_numbers_is_examined_with_the_same_ones_and_leaves_none_behind():
    class Noisy(foreign.PasslMAE):
        def forward_features(self, x):
            return super().forward_features(x) + paddle.rand([1])

    model = Noisy()
    paddle.seed(7)
    wanted = paddle.rand([3]).numpy()
    paddle.seed(7)
    assert apply_patch(model).tome.layout.readout == "mean"
    np.testing.assert_array_equal(paddle.rand([3]).numpy(), wanted)


def test_a_fresh_model_shows_what_it_is():
    """Zero heads and tiny LayerScales, as at initialisation, must not hide the pooling."""
    assert apply_patch(foreign.PasslMAE()).tome.layout.readout == "mean"
    assert apply_patch(foreign.NoClassToken()).tome.layout.readout == "tokens"


def test_models_in_half_precision_can_be_examined():
    model = build("passl-mae")
    model.to(dtype="bfloat16")
    assert apply_patch(model).tome.layout.readout == "mean"
    assert {parameter.dtype for parameter in model.parameters()} == {paddle.bfloat16}


def test_the_flow_of_the_readme(tmp_path):
    trained = build("passl-head0", seed=4)
    paddle.save(trained.state_dict(), str(tmp_path / "weights.pdparams"))
    model = foreign.PasslViT(representation_size=10)
    model.load_pretrained(str(tmp_path / "weights"))
    apply_patch(model)
    model.r = 6
    model.eval()
    image = random_image(4)
    expected = expected_forward("passl-head0", trained, image, [6, 6, 6])
    assert expected.margin > 1e-4
    np.testing.assert_allclose(run(model, image), expected.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["passl", "passl-mae", "timm-no-class-token"])
def test_copies_and_saved_weights_work_after_a_training_step(name, tmp_path):
    model, image = apply_patch(build(name), trace_source=True), random_image(1)
    model.r = 6
    model.train()
    model(paddle.to_tensor(image)).sum().backward()
    twin = copy.deepcopy(model)
    twin.eval(), model.eval()
    np.testing.assert_array_equal(run(twin, image), run(model, image))
    twin.r = 0  # a schedule of its own
    assert not np.allclose(run(twin, image), run(model, image))
    assert twin.tome is twin.__dict__["tome"] and twin.tome is not model.tome

    paddle.save(model.state_dict(), str(tmp_path / "weights.pdparams"))
    other = apply_patch(build(name, seed=9))
    other.r = 6
    other.set_state_dict(paddle.load(str(tmp_path / "weights.pdparams")))
    np.testing.assert_array_equal(run(other, image), run(model, image))


# ---------------------------------------------------------------- tracing


@every_model
def test_tracing(name, tmp_path):
    model = apply_patch(build(name), trace_source=True)
    model.r = [7, 0, 5]
    check_traced(WithSource(model), [3, foreign.IMAGE, foreign.IMAGE], tmp_path, tolerance=1e-4)
    image = random_image(0)
    np.testing.assert_array_equal(run(copy.deepcopy(model), image), run(model, image))  # nothing static stays


@pytest.mark.parametrize("name", ["passl-head0", "passl-mae", "timm-qk-norm", "timm-no-class-token"])
def test_tracing_folded_and_directly(name, tmp_path):
    class AsTuple(paddle.nn.Layer):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return (self.model(x),)

    model = apply_patch(build(name), prop_attn=name != "passl-mae")
    model.r = (5, -1.0)
    with folded(model):
        check_traced(AsTuple(model), [3, foreign.IMAGE, foreign.IMAGE], tmp_path, tolerance=1e-4)


# ---------------------------------------------------------------- training


@every_model
def test_every_parameter_gets_the_gradient_it_had_without_the_patch(name):
    """At r = 0; with merging, every parameter gets some gradient."""
    image = paddle.to_tensor(random_image(2))
    plain, patched = build(name), apply_patch(build(name))
    for model in (plain, patched):
        model.train()
        model(image).square().sum().backward()
    for (key, a), (_, b) in zip(plain.named_parameters(), patched.named_parameters(), strict=True):
        np.testing.assert_allclose(b.grad.numpy(), a.grad.numpy(), rtol=1e-5, atol=1e-6, err_msg=key)
    patched.clear_gradients()
    patched.r = 6
    patched(image).square().sum().backward()
    for key, parameter in patched.named_parameters():
        assert np.abs(parameter.grad.numpy()).max() > 0, key


@pytest.mark.parametrize("rates", [{"drop": 0.3}, {"drop_path": 0.5}], ids=str)
@pytest.mark.parametrize("make", [foreign.PasslViT, foreign.PasslMAE, foreign.TimmViT, foreign.Dino])
def test_dropout_and_drop_path_act_in_training_only(make, rates):
    model = make(**rates)
    randomise(model, 0)
    image = random_image(3, batch=8)
    apply_patch(model).r = 5
    model.train()
    paddle.seed(1)
    one, other = run(model, image), run(model, image)
    assert not np.allclose(one, other)
    paddle.seed(1)
    np.testing.assert_array_equal(run(model, image), one)
    model.eval()
    np.testing.assert_array_equal(run(model, image), run(model, image))


def test_recomputing_blocks_in_the_backward_pass_repeats_their_sizes():
    """As PASSL's recompute does: the forward of every other block is wrapped, after the patch."""
    image = paddle.to_tensor(random_image(5))
    gradients = []
    for wrap in (False, True):
        model = apply_patch(build("passl-mae", seed=5))
        model.r = 6
        model.train()
        if wrap:
            for block in model.blocks[::2]:
                block.forward = (lambda forward: lambda x: recompute(forward, x))(block.forward)
        model(image).square().sum().backward()
        gradients.append({name: value.grad.numpy() for name, value in model.named_parameters()})
    for name, value in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)


# ---------------------------------------------------------------- refusals


class Parts:
    """Attentions, blocks and models that look right and are not."""

    class RelativeBias(foreign.Attention):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.relative_position_bias_table = self.create_parameter([37, HEADS])

    class SeparateBiases(foreign.Attention):
        """CAE's: biases of queries and values beside a Linear without bias, zero at first."""

        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, qkv_bias=False, **options)
            self.q_bias, self.v_bias = self.create_parameter([dim]), self.create_parameter([dim])

    class Windowed(foreign.Attention):
        window_size = (7, 7)

    class TalkingHeads(foreign.Attention):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.proj_l = paddle.nn.Linear(HEADS, HEADS)

        def scores(self, q, k):
            return self.proj_l(super().scores(q, k).transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])

    class Rotary(foreign.Attention):
        def heads(self, x):
            q, k, v = super().heads(x)
            angle = paddle.arange(x.shape[1], dtype="float32").reshape([1, 1, -1, 1]) / 5
            turn = lambda t: t * angle.cos() + t.roll(1, -1) * angle.sin()  # noqa: E731
            return turn(q), turn(k), v

    class HeadsFirst(foreign.Attention):
        """Queries, keys and values of one head next to each other."""

        def heads(self, x):
            qkv = self.qkv(x).reshape([0, x.shape[1], HEADS, 3, -1]).transpose([3, 0, 2, 1, 4])
            return qkv[0], qkv[1], qkv[2]

    class Causal(foreign.Attention):
        def scores(self, q, k):
            return super().scores(q, k) + paddle.triu(paddle.full([q.shape[2]] * 2, -1e4), 1)

    class LearnedScale(foreign.Attention):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.scale = self.create_parameter([1])

    class SwappedNorms(foreign.Attention):
        """qk-norm over all heads at once."""

        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.q_norm, self.k_norm = paddle.nn.LayerNorm(dim), paddle.nn.LayerNorm(dim)

        def heads(self, x):
            q, k, v = self.qkv(x).split(3, axis=-1)
            shape = [0, x.shape[1], HEADS, -1]
            q, k = self.q_norm(q), self.k_norm(k)
            return tuple(part.reshape(shape).transpose([0, 2, 1, 3]) for part in (q, k, v))

    class StrangeDropout(foreign.Attention):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.key_drop = paddle.nn.Dropout(0.1)

    class NormBeforeProjection(foreign.Attention):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.norm = paddle.nn.LayerNorm(dim)

    class PostNorm(foreign.Block):
        def forward(self, x):
            x = self.norm1(x + self.attn(x))
            return self.norm2(x + self.mlp(x))

    class ResidualPostNorm(foreign.Block):
        def forward(self, x):
            x = x + self.norm1(self.attn(x))
            return x + self.norm2(self.mlp(x))

    class Parallel(foreign.Block):
        def forward(self, x):
            return x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x))

    class MoreArguments(foreign.Block):
        def forward(self, x, mask):
            return super().forward(x)

    class AlsoReturns(foreign.Block):
        def forward(self, x):
            return super().forward(x), self.attn(x)

    class FixedLength(foreign.Block):
        def forward(self, x):
            return super().forward(x).reshape([-1, 37, foreign.DIM])

    class LongInputsOnly(foreign.Block):
        """Does something else from a number of tokens on."""

        def forward(self, x):
            return super().forward(x) if x.shape[1] < 20 else super().forward(x.tanh())

    class ConvolutionInMlp(foreign.Block):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.mlp.conv = paddle.nn.Conv1D(dim, dim, 3, padding=1)
            self.mlp.forward = lambda x: self.mlp.conv(x.transpose([0, 2, 1])).transpose([0, 2, 1])

    class SqueezeInMlp(foreign.Mlp):
        """The same whatever the order of the tokens, but not token by token."""

        def forward(self, x):
            return super().forward(x) * x.mean(1, keepdim=True)

    class ShiftInMlp(foreign.Mlp):
        """Each token also sees the one before it."""

        def forward(self, x):
            before = paddle.concat([paddle.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
            return super().forward(x + before)

    class ShiftBlock(foreign.Block):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.mlp = Parts.ShiftInMlp(dim, 2 * dim)

    class SqueezeBlock(foreign.Block):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.mlp = Parts.SqueezeInMlp(dim, 2 * dim)

    class Adapter(foreign.Block):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            self.adapter = paddle.nn.Linear(dim, dim)

    class ConvQkv(foreign.Block):
        def __init__(self, dim=foreign.DIM, **options):
            super().__init__(dim, **options)
            del self.attn.qkv
            self.attn.q, self.attn.k, self.attn.v = (paddle.nn.Linear(dim, dim) for _ in range(3))

    class Swin(foreign.Block):
        shift_size = 3

    class Taps(foreign.PasslViT):
        """The head reads the mean of every block's tokens."""

        def forward_features(self, x):
            x = self.patch_embed(x)
            x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1)
            means = []
            for blk in self.blocks:
                x = blk(x)
                means.append(x.mean(1))
            return sum(means)

    class PositionsInEveryBlock(foreign.PasslViT):
        def forward_features(self, x):
            x = self.patch_embed(x)
            x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1)
            for blk in self.blocks:
                x = blk(x + self.pos_embed)
            return x[:, 0]

    class Registers(foreign.PasslViT):
        def __init__(self):
            super().__init__()
            self.registers = self.create_parameter([1, 4, foreign.DIM])

        def forward_features(self, x):
            x = self.patch_embed(x)
            special = paddle.concat([self.cls_token, self.registers], axis=1)
            x = paddle.concat([special.expand([x.shape[0], -1, -1]), x], axis=1)
            for blk in self.blocks:
                x = blk(x)
            return x[:, 0]

    class ClassTokenLast(foreign.PasslViT):
        def forward_features(self, x):
            x = self.patch_embed(x)
            x = paddle.concat([x, self.cls_token.expand([x.shape[0], -1, -1])], axis=1)
            for blk in self.blocks:
                x = blk(x)
            return x[:, -1]

    class SharedBias(foreign.PasslViT):
        """As BEiT's with one table for all blocks."""

        def __init__(self):
            super().__init__()
            self.rel_pos_bias = paddle.nn.Linear(2, 2)

    class MaskArgument(foreign.PasslViT):
        def forward_features(self, x):
            x = self.patch_embed(x)
            for blk in self.blocks:
                x = blk(x, mask=x)
            return x[:, 0]

    class NeedsMore(foreign.PasslViT):
        def forward(self, x, bool_masked_pos):
            return super().forward(x)

    class LastBlockUnused(foreign.PasslViT):
        def forward_features(self, x):
            x = self.patch_embed(x)
            for blk in self.blocks[:-1]:
                x = blk(x)
            return x[:, 0]

    class Twice(foreign.PasslViT):
        def forward_features(self, x):
            x = self.patch_embed(x)
            for blk in [*self.blocks, *self.blocks]:
                x = blk(x)
            return x[:, 0]

    class TwoTowers(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = foreign.PasslViT(), foreign.PasslViT()

    class Hierarchical(foreign.PasslViT):
        """Patches are merged two by two between the blocks."""

        def forward_features(self, x):
            x = self.patch_embed(x)
            for blk in self.blocks:
                x = blk(x)
                x = x[:, ::2] + x[:, 1::2] if x.shape[1] % 2 == 0 else x
            return x.mean(1)


def build_with(attention=None, block=foreign.Block):
    if attention is not None:
        block = type("Block", (block,), {"attention": attention})
    return type("ViT", (foreign.PasslViT,), {"block": block})()


ATTENTIONS = {
    Parts.RelativeBias: "relative_position_bias_table: merged tokens have no relative position",
    Parts.SeparateBiases: "block 0 has a parameter attn.q_bias",
    Parts.Windowed: "blocks.0.attn attends within windows",
    Parts.TalkingHeads: r"block 0 has a layer attn.proj_l \(Linear\)",
    Parts.Rotary: "block 0 does not compute x",
    Parts.HeadsFirst: "block 0 does not compute x",
    Parts.Causal: "block 0 does not compute x",
    Parts.LearnedScale: "attn.scale that is not a number",
    Parts.SwappedNorms: "block 0 has parts that do not fit together",
    Parts.StrangeDropout: r"attn.key_drop \(Dropout\)",
    Parts.NormBeforeProjection: r"attn.norm \(LayerNorm\)",
}
BLOCKS = {
    Parts.PostNorm: "block 0 does not compute x",
    Parts.ResidualPostNorm: "block 0 does not compute x",
    Parts.Parallel: "block 0 does not compute x",
    Parts.MoreArguments: "block 0 does not run on 7 tokens alone",
    Parts.AlsoReturns: "block 0 does not return as many tokens as it gets, and nothing else",
    Parts.FixedLength: "block 0 does not",
    Parts.LongInputsOnly: "block 0 does not compute x",
    Parts.ConvolutionInMlp: "block 0 mixes tokens outside its attention",
    Parts.ShiftBlock: "block 0 mixes tokens outside its attention",
    Parts.SqueezeBlock: "block 0 mixes tokens outside its attention",
    Parts.Adapter: r"a layer adapter \(Linear\)",
    Parts.ConvQkv: "block 0 has no attn.qkv",
    Parts.Swin: "attends within windows",
}
WHOLE_MODELS = {
    Parts.Taps: "reads patch tokens between its blocks",
    Parts.PositionsInEveryBlock: "changes the tokens between block 0 and block 1",
    Parts.Registers: "has 5 tokens beside the patches",
    Parts.ClassTokenLast: "elsewhere than in front",
    Parts.SharedBias: "rel_pos_bias",
    Parts.MaskArgument: "calls its blocks with mask",
    Parts.NeedsMore: "does not run on images",
    Parts.LastBlockUnused: "calls 2 of its 3 blocks",
    Parts.Twice: "once each and in order",
    Parts.TwoTowers: "has 2 lists of blocks .stages, towers., not one: student.blocks, teacher.blocks",
    Parts.Hierarchical: "changes the tokens between block 0 and block 1",
}
REFUSED = {
    attention.__name__: (lambda a=attention: build_with(a), why) for attention, why in ATTENTIONS.items()
}
REFUSED |= {block.__name__: (lambda b=block: build_with(block=b), why) for block, why in BLOCKS.items()}
REFUSED |= {model.__name__: (model, why) for model, why in WHOLE_MODELS.items()}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_patched_faithfully_is_refused_and_left_alone(name):
    make, why = REFUSED[name]
    model = make()
    classes = [type(layer) for layer in model.sublayers(include_self=True)]
    attributes = [set(vars(layer)) for layer in model.sublayers(include_self=True)]
    with pytest.raises(PatchError, match=why) as caught:
        apply_patch(model)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"cannot patch {type(model).__name__}: ")
    assert [type(layer) for layer in model.sublayers(include_self=True)] == classes
    assert [set(vars(layer)) for layer in model.sublayers(include_self=True)] == attributes


def test_one_odd_block_among_good_ones_is_found():
    model = build("passl")
    model.blocks[2] = Parts.Parallel()
    with pytest.raises(PatchError, match="block 2 does not compute"):
        apply_patch(model)
    model = build("passl")
    model.blocks[1].attn.num_heads = 2  # same class, same layers, another setting: patched as what it is
    apply_patch(model)
    assert [block._tome_parts.num_heads for block in model.blocks] == [3, 2, 3]


def test_a_forward_that_is_already_wrapped_is_refused():
    model = build("passl")
    model.blocks[0].forward = model.blocks[0].forward
    with pytest.raises(PatchError, match="block 0 has a wrapped forward"):
        apply_patch(model)


def test_blocks_patched_as_part_of_another_model_are_refused():
    class Wrapper(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.backbone = apply_patch(build("passl"))

        def forward(self, x):
            return self.backbone(x)

    with pytest.raises(PatchError, match="patched already"):
        apply_patch(Wrapper())


def test_a_model_inside_a_wrapper_is_patched_through_it():
    class Wrapper(paddle.nn.Layer):
        def __init__(self, backbone):
            super().__init__()
            self.backbone = backbone

        def forward(self, x):
            return self.backbone(x) * 2.0

    model, image, expected = case_away_from_ties("passl", [6, 6, 6])
    wrapper = apply_patch(Wrapper(model))
    wrapper.r = 6
    np.testing.assert_allclose(run(wrapper, image), 2 * expected.logits, rtol=1e-4, atol=1e-4)


def test_the_image_size_can_be_told():
    model = build("timm-no-class-token")
    model.patch_embed.forward = lambda x: model.patch_embed.proj(x).flatten(2).transpose([0, 2, 1])
    del model.patch_embed.img_size
    assert apply_patch(copy.deepcopy(model), image_size=48).tome.tokens == 36
    assert apply_patch(copy.deepcopy(model)).tome.tokens == 36  # 36 positions, stride 8
    with pytest.raises(PatchError, match="does not run on images of shape"):
        apply_patch(model, image_size=(40, 48))


def test_another_number_of_tokens_than_the_schedule_was_made_for_is_an_error():
    class AnySize(foreign.PasslViT):
        def forward_features(self, x):
            x = self.patch_embed.proj(x).flatten(2).transpose([0, 2, 1])
            x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1)
            for blk in self.blocks:
                x = blk(x)
            return self.norm(x)[:, 0]

    model = apply_patch(AnySize())
    model.r = 4
    model(paddle.zeros([1, 3, 48, 48]))
    with pytest.raises(PatchError, match="patched for 37 tokens; block 0 got 26"):
        model(paddle.zeros([1, 3, 40, 40]))


# ---------------------------------------------------------------- PaddleClas itself


def paddleclas_model(ppcls, name, seed):
    import importlib

    vit = importlib.import_module(f"{ppcls.__name__}.vision_transformer").VisionTransformer
    deit = importlib.import_module(
        f"{ppcls.__name__}.distilled_vision_transformer"
    ).DistilledVisionTransformer
    options = {
        "img_size": 48,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": HEADS,
        "class_num": 7,
    }
    model = {
        "base": lambda: vit(**options, qkv_bias=True, epsilon=1e-6),
        "small": lambda: vit(**options, mlp_ratio=3, qk_scale=24**-0.5, epsilon=1e-6),
        "deit-distilled": lambda: deit(**options, qkv_bias=True, epsilon=1e-6),
    }[name]()
    randomise(model, seed)
    model.eval()
    return model


@pytest.mark.parametrize("name", ["base", "small", "deit-distilled"])
@pytest.mark.parametrize("r", [[0, 0, 0], [6, 6, 6], [9, 0, 4]], ids=str)
def test_paddleclas_classes_against_the_reference(ppcls, name, r, tmp_path):
    for seed in range(50):
        model, image = paddleclas_model(ppcls, name, seed), random_image(seed)
        weights = plain_weights(model)
        expected = reference.vit_forward(weights, image.astype("float64"), HEADS, r)
        if expected.margin > 1e-4:
            break
    before = run(model, image)
    apply_patch(model, trace_source=True)
    np.testing.assert_array_equal(run(model, image), before)
    model.r = r
    np.testing.assert_allclose(run(model, image), expected.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.tome.source.numpy(), expected.source)
    check_traced(WithSource(model), [3, 48, 48], tmp_path, tolerance=1e-4)


def test_paddleclas_swin_is_refused_with_the_reason(ppcls):
    import importlib

    module = importlib.import_module("ppcls.arch.backbone.legendary_models.swin_transformer")
    model = module.SwinTransformer(img_size=56, embed_dim=24, depths=[2, 2], num_heads=[3, 6], class_num=7)
    with pytest.raises(PatchError, match="attends within windows"):
        apply_patch(model)
