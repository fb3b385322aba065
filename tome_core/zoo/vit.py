"""Vision Transformer: ViT, DeiT (with or without distillation token) and MAE's classifier in one class.

State-dict keys are those timm, PASSL and PaddleClas share. Linear weights are [in, out], as in all of Paddle.
"""

from __future__ import annotations

from dataclasses import replace

import paddle
import paddle.nn.functional as F
from paddle import nn

from tome_core.zoo.config import ViTConfig

_TRUNCATED = nn.initializer.TruncatedNormal(std=0.02)
_ZERO = nn.initializer.Constant(0.0)


class Attention(nn.Layer):
    """Multi-head self-attention on [batch, tokens, channels]."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.num_heads = config.num_heads
        self.head_dim = dim // config.num_heads
        self.scale = config.qk_scale or self.head_dim**-0.5
        self.qkv = _linear(dim, 3 * dim, bias=config.qkv_bias)
        self.proj = _linear(dim, dim)

    def forward(self, x):
        tokens = x.shape[1]
        heads = [0, tokens, self.num_heads, self.head_dim]
        q, k, v = (part.reshape(heads).transpose([0, 2, 1, 3]) for part in self.qkv(x).split(3, axis=-1))
        weights = F.softmax((q * self.scale).matmul(k, transpose_y=True), axis=-1)
        x = weights.matmul(v).transpose([0, 2, 1, 3]).reshape([0, tokens, self.num_heads * self.head_dim])
        return self.proj(x)


class Mlp(nn.Layer):
    """Two layers with an exact GELU between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = _linear(config.embed_dim, config.hidden_dim)
        self.fc2 = _linear(config.hidden_dim, config.embed_dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Layer):
    """Pre-norm transformer block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, epsilon=config.epsilon)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, epsilon=config.epsilon)
        self.mlp = Mlp(config)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Layer):
    """Image [batch, 3, H, W] -> patch tokens [batch, patches, channels]."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2D(3, config.embed_dim, config.patch_size, stride=config.patch_size)
        self.shape = [0, config.embed_dim, config.patches]

    def forward(self, x):
        return self.proj(x).reshape(self.shape).transpose([0, 2, 1])


class VisionTransformer(nn.Layer):
    """Image, float32 [batch, 3, H, W], already normalised -> logits [batch, num_classes].

    A distilled model returns the mean of its two heads, or both while training.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = PatchEmbed(config)
        self.cls_token = self.create_parameter([1, 1, dim], default_initializer=_TRUNCATED)
        if config.distilled:
            self.dist_token = self.create_parameter([1, 1, dim], default_initializer=_TRUNCATED)
        self.pos_embed = self.create_parameter([1, config.tokens, dim], default_initializer=_TRUNCATED)
        self.blocks = nn.LayerList([Block(config) for _ in range(config.depth)])
        norm = nn.LayerNorm(dim, epsilon=config.epsilon)
        if config.global_pool:
            self.fc_norm = norm
        else:
            self.norm = norm
        if config.representation_size:
            self.head0 = _linear(dim, config.representation_size)
        self.head = _linear(config.representation_size or dim, config.num_classes)
        if config.distilled:
            self.head_dist = _linear(dim, config.num_classes)

    def forward(self, x):
        x = self.forward_features(x)
        if self.config.global_pool:
            return self.head(self.fc_norm(self.pool(x)))
        if self.config.distilled:
            x = self.norm(x[:, :2])
            main, distilled = self.head(x[:, 0]), self.head_dist(x[:, 1])
            return (main, distilled) if self.training else (main + distilled) / 2
        x = self.norm(x[:, 0])
        if self.config.representation_size:
            x = F.tanh(self.head0(x))
        return self.head(x)

    def forward_features(self, x):
        """Image -> tokens after the last block, [batch, tokens, channels], not yet normalised."""
        x = self.patch_embed(x)
        special = self.cls_token
        if self.config.distilled:
            special = paddle.concat([special, self.dist_token], axis=1)
        # Paddle rewrites x.shape[0] to a shape operator when tracing, but not inside a comprehension.
        special = special.expand([x.shape[0], special.shape[1], special.shape[2]])
        x = paddle.concat([special, x], axis=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x

    def pool(self, x):
        """Mean of the patch tokens, [batch, channels]."""
        return x[:, self.config.protected :].sum(1) / self.config.patches

    def load_pretrained(self, path: str) -> None:
        """Load `path` + ".pdparams", as PASSL's models do.

        A `head0` layer in the file is added to the model, as PASSL's 224-pixel models have one.
        Raises CheckpointError if anything is missing, unexpected or mis-shaped; then nothing is loaded.
        """
        from tome_core.checkpoints import read_checkpoint
        from tome_core.checkpoints.loading import load_weights

        tensors = read_checkpoint(f"{path}.pdparams").tensors
        head0 = tensors.get("head0.weight")
        adapted = self
        if head0 is not None and not self.config.representation_size and head0.ndim == 2:
            adapted = VisionTransformer(replace(self.config, representation_size=head0.shape[1]))
        load_weights(adapted, tensors)
        if adapted is not self:
            self.config, self.head0, self.head = adapted.config, adapted.head0, adapted.head
            self.set_state_dict(adapted.state_dict())


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(inputs, outputs, weight_attr=_TRUNCATED, bias_attr=_ZERO if bias else False)
