"""Weights in the true structure of other people's models, each with its own forward pass in plain numpy.

A forward works on its layout's own keys and axes and shares nothing with the converter. Weights have the
scale that keeps signals alive, so that a mistake in any of them shows in the logits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import writers

SIZE, PATCH, WIDTH, HEADS, DEPTH, HIDDEN, CLASSES = 48, 8, 24, 3, 3, 96, 7
GRID = SIZE // PATCH
OPTIONS = {"num_heads": HEADS}  # what no file tells


@dataclass(frozen=True)
class Foreign:
    tensors: dict[str, np.ndarray]
    forward: Callable[[np.ndarray], np.ndarray]  # image float64 [B, 3, SIZE, SIZE] -> logits [B, CLASSES]


class Draw:
    """Random arrays: weights scaled by their inputs, biases and tokens of half a unit."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def weight(self, *shape, fan_in):
        return (1.5 * self.rng.normal(size=shape) / math.sqrt(fan_in)).astype("f4")

    def small(self, *shape):
        return (0.5 * self.rng.normal(size=shape)).astype("f4")

    def scale(self, size):
        return (1 + 0.3 * self.rng.normal(size=size)).astype("f4")


# ---------------------------------------------------------------- arithmetic common to them all


def layer_norm(x, scale, bias, eps=1e-6):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps) * scale + bias


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(q, k, v):
    """[B, N, heads, width] three times -> [B, N, heads, width]."""
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[-1] ** -0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v)


def patches_of(image):
    """[B, 3, SIZE, SIZE] -> [B, patches, 3, PATCH, PATCH], rows first."""
    grid = image.reshape(len(image), 3, GRID, PATCH, GRID, PATCH)
    return grid.transpose(0, 2, 4, 1, 3, 5).reshape(len(image), GRID * GRID, 3, PATCH, PATCH)


def run_blocks(x, depth, norm, attention, mlp):
    for i in range(depth):
        x = x + attention(i, norm(i, 1, x))
        x = x + mlp(i, norm(i, 2, x))
    return x


def with_tokens(tokens, x):
    return np.concatenate([np.repeat(token, len(x), axis=0) for token in tokens] + [x], axis=1)


# ---------------------------------------------------------------- torch with timm's keys: timm, DeiT, MAE


def timm_like(seed=0, *, distilled=False, pooled=False, pre_logits=False):
    draw, t = Draw(seed), {}

    def linear(name, inputs, outputs):
        t[f"{name}.weight"] = draw.weight(outputs, inputs, fan_in=inputs)  # [out, in]
        t[f"{name}.bias"] = draw.small(outputs)

    def norm(name):
        t[f"{name}.weight"], t[f"{name}.bias"] = draw.scale(WIDTH), draw.small(WIDTH)

    t["cls_token"] = draw.small(1, 1, WIDTH)
    if distilled:
        t["dist_token"] = draw.small(1, 1, WIDTH)
    t["pos_embed"] = draw.small(1, GRID * GRID + 1 + distilled, WIDTH)
    t["patch_embed.proj.weight"] = draw.weight(WIDTH, 3, PATCH, PATCH, fan_in=3 * PATCH * PATCH)
    t["patch_embed.proj.bias"] = draw.small(WIDTH)
    for i in range(DEPTH):
        norm(f"blocks.{i}.norm1")
        linear(f"blocks.{i}.attn.qkv", WIDTH, 3 * WIDTH)
        linear(f"blocks.{i}.attn.proj", WIDTH, WIDTH)
        norm(f"blocks.{i}.norm2")
        linear(f"blocks.{i}.mlp.fc1", WIDTH, HIDDEN)
        linear(f"blocks.{i}.mlp.fc2", HIDDEN, WIDTH)
    norm("fc_norm" if pooled else "norm")
    if pre_logits:
        linear("pre_logits.fc", WIDTH, WIDTH)
    linear("head", WIDTH, CLASSES)
    if distilled:
        linear("head_dist", WIDTH, CLASSES)

    def apply(name, x):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def normed(name, x):
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"])

    def attention(i, x):
        qkv = apply(f"blocks.{i}.attn.qkv", x).reshape(*x.shape[:2], 3, HEADS, WIDTH // HEADS)
        return apply(f"blocks.{i}.attn.proj", attend(*np.moveaxis(qkv, 2, 0)).reshape(x.shape))

    def forward(image):
        x = np.einsum("bncij,ocij->bno", patches_of(image), t["patch_embed.proj.weight"])
        tokens = [t["cls_token"]] + ([t["dist_token"]] if distilled else [])
        x = with_tokens(tokens, x + t["patch_embed.proj.bias"]) + t["pos_embed"]
        x = run_blocks(
            x,
            DEPTH,
            lambda i, n, x: normed(f"blocks.{i}.norm{n}", x),
            attention,
            lambda i, x: apply(f"blocks.{i}.mlp.fc2", gelu(apply(f"blocks.{i}.mlp.fc1", x))),
        )
        if pooled:
            return apply("head", normed("fc_norm", x[:, 1:].mean(1)))
        x = normed("norm", x)
        if distilled:
            return (apply("head", x[:, 0]) + apply("head_dist", x[:, 1])) / 2
        x = x[:, 0]
        return apply("head", np.tanh(apply("pre_logits.fc", x)) if pre_logits else x)

    return Foreign(t, forward)


# ---------------------------------------------------------------- torchvision and SWAG


def torchvision_like(seed=0, *, swag=False, mlp=("0", "3"), pre_logits=False):
    """`mlp`: names of the two Linear layers; before torchvision 0.13, and in SWAG, linear_1 and linear_2."""
    draw, t = Draw(seed), {}
    layer = "layer" if swag else "encoder_layer"
    heads = "head.layers" if swag else "heads"

    def linear(name, inputs, outputs, sep="."):
        t[f"{name}{sep}weight"] = draw.weight(outputs, inputs, fan_in=inputs)
        t[f"{name}{sep}bias"] = draw.small(outputs)

    def norm(name):
        t[f"{name}.weight"], t[f"{name}.bias"] = draw.scale(WIDTH), draw.small(WIDTH)

    t["class_token"] = draw.small(1, 1, WIDTH)
    t["conv_proj.weight"] = draw.weight(WIDTH, 3, PATCH, PATCH, fan_in=3 * PATCH * PATCH)
    t["conv_proj.bias"] = draw.small(WIDTH)
    positions = GRID * GRID + 1
    t["encoder.pos_embedding"] = draw.small(*((positions, 1, WIDTH) if swag else (1, positions, WIDTH)))
    for i in range(DEPTH):
        at = f"encoder.layers.{layer}_{i}"
        norm(f"{at}.ln_1")
        linear(f"{at}.self_attention.in_proj", WIDTH, 3 * WIDTH, sep="_")
        linear(f"{at}.self_attention.out_proj", WIDTH, WIDTH)
        norm(f"{at}.ln_2")
        linear(f"{at}.mlp.{mlp[0]}", WIDTH, HIDDEN)
        linear(f"{at}.mlp.{mlp[1]}", HIDDEN, WIDTH)
    norm("encoder.ln")
    if pre_logits:
        linear(f"{heads}.pre_logits", WIDTH, 2 * WIDTH)
    linear(f"{heads}.head", 2 * WIDTH if pre_logits else WIDTH, CLASSES)

    def apply(name, x):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def normed(name, x):
        return layer_norm(x, t[f"{name}.weight"], t[f"{name}.bias"])

    def attention(i, x):
        """torch.nn.MultiheadAttention: in_proj stacks the matrices of queries, keys and values."""
        at = f"encoder.layers.{layer}_{i}.self_attention"
        matrices = np.split(t[f"{at}.in_proj_weight"], 3, axis=0)
        biases = np.split(t[f"{at}.in_proj_bias"], 3)
        by_head = (*x.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = ((x @ m.T + b).reshape(by_head) for m, b in zip(matrices, biases, strict=True))
        return apply(f"{at}.out_proj", attend(q, k, v).reshape(x.shape))

    def forward(image):
        x = np.einsum("bncij,ocij->bno", patches_of(image), t["conv_proj.weight"]) + t["conv_proj.bias"]
        positions = t["encoder.pos_embedding"]
        x = with_tokens([t["class_token"]], x) + (positions.transpose(1, 0, 2) if swag else positions)
        x = run_blocks(
            x,
            DEPTH,
            lambda i, n, x: normed(f"encoder.layers.{layer}_{i}.ln_{n}", x),
            attention,
            lambda i, x: apply(
                f"encoder.layers.{layer}_{i}.mlp.{mlp[1]}",
                gelu(apply(f"encoder.layers.{layer}_{i}.mlp.{mlp[0]}", x)),
            ),
        )
        x = normed("encoder.ln", x)[:, 0]
        return apply(f"{heads}.head", np.tanh(apply(f"{heads}.pre_logits", x)) if pre_logits else x)

    return Foreign(t, forward)


# ---------------------------------------------------------------- Google's JAX


def augreg_like(seed=0, *, pre_logits=False, gelu=gelu):
    draw, t = Draw(seed), {}
    each = WIDTH // HEADS

    def dense(name, shape, bias, fan_in):
        t[f"{name}/kernel"], t[f"{name}/bias"] = draw.weight(*shape, fan_in=fan_in), draw.small(*bias)

    def norm(name):
        t[f"{name}/scale"], t[f"{name}/bias"] = draw.scale(WIDTH), draw.small(WIDTH)

    t["cls"] = draw.small(1, 1, WIDTH)
    dense("embedding", (PATCH, PATCH, 3, WIDTH), (WIDTH,), 3 * PATCH * PATCH)
    t["Transformer/posembed_input/pos_embedding"] = draw.small(1, GRID * GRID + 1, WIDTH)
    for i in range(DEPTH):
        at = f"Transformer/encoderblock_{i}"
        norm(f"{at}/LayerNorm_0")
        for part in ("query", "key", "value"):
            name = f"{at}/MultiHeadDotProductAttention_1/{part}"
            dense(name, (WIDTH, HEADS, each), (HEADS, each), WIDTH)
        dense(f"{at}/MultiHeadDotProductAttention_1/out", (HEADS, each, WIDTH), (WIDTH,), WIDTH)
        norm(f"{at}/LayerNorm_2")
        dense(f"{at}/MlpBlock_3/Dense_0", (WIDTH, HIDDEN), (HIDDEN,), WIDTH)
        dense(f"{at}/MlpBlock_3/Dense_1", (HIDDEN, WIDTH), (WIDTH,), HIDDEN)
    norm("Transformer/encoder_norm")
    if pre_logits:
        dense("pre_logits", (WIDTH, WIDTH), (WIDTH,), WIDTH)
    dense("head", (WIDTH, CLASSES), (CLASSES,), WIDTH)

    def apply(name, x):
        return x @ t[f"{name}/kernel"] + t[f"{name}/bias"]

    def normed(name, x):
        return layer_norm(x, t[f"{name}/scale"], t[f"{name}/bias"])

    def attention(i, x):
        at = f"Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1"
        q, k, v = (
            np.einsum("bnc,chd->bnhd", x, t[f"{at}/{part}/kernel"]) + t[f"{at}/{part}/bias"]
            for part in ("query", "key", "value")
        )
        return np.einsum("bnhd,hdc->bnc", attend(q, k, v), t[f"{at}/out/kernel"]) + t[f"{at}/out/bias"]

    def forward(image):
        x = np.einsum("bncij,ijco->bno", patches_of(image), t["embedding/kernel"]) + t["embedding/bias"]
        x = with_tokens([t["cls"]], x) + t["Transformer/posembed_input/pos_embedding"]
        x = run_blocks(
            x,
            DEPTH,
            lambda i, n, x: normed(f"Transformer/encoderblock_{i}/LayerNorm_{2 * n - 2}", x),
            attention,
            lambda i, x: apply(
                f"Transformer/encoderblock_{i}/MlpBlock_3/Dense_1",
                gelu(apply(f"Transformer/encoderblock_{i}/MlpBlock_3/Dense_0", x)),
            ),
        )
        x = normed("Transformer/encoder_norm", x)[:, 0]
        return apply("head", np.tanh(apply("pre_logits", x)) if pre_logits else x)

    return Foreign(t, forward)


# ---------------------------------------------------------------- files


def torch_file(tensors, wrapper=None, code="f4"):
    """What `torch.save` writes, without torch. `code`: "f4", "f2" or "bf16"."""
    state, storages = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = tuple(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim))
        part = writers.storage(str(key), code, array.size)
        state[name] = writers.tensor(part, array.shape, strides)
        kept = writers.upper_half(array) if code == "bf16" else array.astype(f"<{code}").tobytes()
        storages[str(key)] = kept
    return writers.torch_zip({wrapper: state, "epoch": 3} if wrapper else state, storages)


def safetensors_file(tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        blob = array.astype("<f4").tobytes()
        span = [len(data), len(data) + len(blob)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": span}
        data += blob
    return writers.safetensors(header, data)
