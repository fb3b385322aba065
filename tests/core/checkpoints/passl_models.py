"""A stand-in for PASSL's Vision Transformers, from their published structure (PASSL is not installable).

One class with PASSL's attribute names and defaults: no qkv bias and epsilon 1e-5 unless told otherwise, a
tanh layer `head0` where `representation_size` is set, `fc_norm` in place of `norm` where MAE pools.
"""

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from .foreign import CLASSES, DEPTH, GRID, HEADS, HIDDEN, PATCH, WIDTH


class _Attention(nn.Layer):
    def __init__(self, qkv_bias):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias_attr=qkv_bias)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        qkv = self.qkv(x).reshape([x.shape[0], x.shape[1], 3, HEADS, WIDTH // HEADS])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        scores = paddle.matmul(q, k.transpose([0, 1, 3, 2])) * (WIDTH // HEADS) ** -0.5
        out = paddle.matmul(F.softmax(scores, -1), v)
        return self.proj(out.transpose([0, 2, 1, 3]).reshape(x.shape))


class _Mlp(nn.Layer):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Layer):
    def __init__(self, qkv_bias, epsilon):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, epsilon=epsilon)
        self.attn = _Attention(qkv_bias)
        self.norm2 = nn.LayerNorm(WIDTH, epsilon=epsilon)
        self.mlp = _Mlp()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Layer):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2D(3, WIDTH, kernel_size=PATCH, stride=PATCH)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose([0, 2, 1])


class PasslViT(nn.Layer):
    def __init__(self, qkv_bias=False, epsilon=1e-5, representation_size=None, distilled=False, pooled=False):
        super().__init__()
        self.patch_embed = _PatchEmbed()
        self.cls_token = self.create_parameter([1, 1, WIDTH])
        self.dist_token = self.create_parameter([1, 1, WIDTH]) if distilled else None
        self.pos_embed = self.create_parameter([1, GRID * GRID + 1 + distilled, WIDTH])
        self.blocks = nn.LayerList([_Block(qkv_bias, epsilon) for _ in range(DEPTH)])
        self.norm = None if pooled else nn.LayerNorm(WIDTH, epsilon=epsilon)
        self.fc_norm = nn.LayerNorm(WIDTH, epsilon=epsilon) if pooled else None
        self.head0 = nn.Linear(WIDTH, representation_size) if representation_size else None
        self.head = nn.Linear(representation_size or WIDTH, CLASSES)
        self.head_dist = nn.Linear(WIDTH, CLASSES) if distilled else None

    def forward(self, image):
        x = self.patch_embed(image)
        tokens = [t for t in (self.cls_token, self.dist_token) if t is not None]
        x = paddle.concat([t.expand([x.shape[0], -1, -1]) for t in tokens] + [x], axis=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        if self.fc_norm is not None:
            return self.head(self.fc_norm(x[:, 1:].mean(axis=1)))
        x = self.norm(x)
        if self.head_dist is not None:
            return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2
        x = x[:, 0]
        return self.head(paddle.tanh(self.head0(x)) if self.head0 is not None else x)


def passl_model(seed=0, scale=1.0, **options):
    """A model with random weights. A small `scale` of what enters the blocks makes epsilon count."""
    model, rng = PasslViT(**options), np.random.default_rng(seed)
    for name, parameter in model.state_dict().items():
        draw = rng.normal(size=parameter.shape)
        if "norm" in name and name.endswith("weight"):
            draw = 1 + 0.3 * draw
        elif name.endswith("weight"):
            draw = 1.5 * draw / np.sqrt(np.prod(parameter.shape[1:]) if draw.ndim == 4 else draw.shape[0])
        else:
            draw = 0.5 * draw
        if name.startswith(("patch_embed", "cls", "pos")):
            draw = scale * draw
        parameter.set_value(draw.astype("float32"))
    model.eval()
    return model
