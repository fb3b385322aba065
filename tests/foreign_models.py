"""Vision Transformers as other projects build them, small, written from their published structure.

What they share is here once; what makes each of them itself (how it counts the batch, names its parts, scales
its branches, reads its tokens) is as in the original, because that is what patching them has to cope with.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

DIM, HEADS, DEPTH, IMAGE, PATCH, CLASSES = 24, 3, 3, 48, 8, 7
PATCHES = (IMAGE // PATCH) ** 2


class DropPath(nn.Layer):
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training or self.drop_prob == 0:
            return x
        keep = 1 - self.drop_prob
        return x / keep * paddle.floor(keep + paddle.rand([paddle.shape(x)[0], 1, 1]))


class Mlp(nn.Layer):
    def __init__(self, dim, hidden, drop=0.0):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Attention(nn.Layer):
    """PASSL's and PaddleClas's: tuples as shapes, the scale after the product."""

    def __init__(self, dim=DIM, num_heads=HEADS, qkv_bias=True, qk_scale=None, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias_attr=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def heads(self, x):
        N, C = x.shape[1:]
        qkv = self.qkv(x).reshape((-1, N, 3, self.num_heads, C // self.num_heads)).transpose((2, 0, 3, 1, 4))
        return qkv[0], qkv[1], qkv[2]

    def scores(self, q, k):
        return q.matmul(k.transpose((0, 1, 3, 2))) * self.scale

    def forward(self, x):
        N, C = x.shape[1:]
        q, k, v = self.heads(x)
        attn = self.attn_drop(F.softmax(self.scores(q, k), axis=-1))
        return self.proj_drop(self.proj(attn.matmul(v).transpose((0, 2, 1, 3)).reshape((-1, N, C))))


class Block(nn.Layer):
    attention = Attention

    def __init__(self, dim=DIM, drop=0.0, drop_path=0.0, epsilon=1e-6, mlp_ratio=2, **attention):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, epsilon=epsilon)
        self.attn = self.attention(dim, attn_drop=drop, proj_drop=drop, **attention)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, epsilon=epsilon)
        self.mlp = Mlp(dim, mlp_ratio * dim, drop)

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


class PatchEmbed(nn.Layer):
    def __init__(self, dim=DIM):
        super().__init__()
        self.img_size, self.patch_size, self.num_patches = (IMAGE, IMAGE), (PATCH, PATCH), PATCHES
        self.proj = nn.Conv2D(3, dim, kernel_size=PATCH, stride=PATCH)
        self.norm = nn.Identity()

    def forward(self, x):
        B, C, H, W = x.shape
        assert H == self.img_size[0] and W == self.img_size[1]
        return self.norm(self.proj(x).flatten(2).transpose((0, 2, 1)))


class PasslViT(nn.Layer):
    """PASSL's VisionTransformer: `paddle.shape(x)[0]`, head0 + tanh, zero heads at first, load_pretrained."""

    block, extra_tokens = Block, 1

    def __init__(self, representation_size=None, dim=DIM, depth=DEPTH, drop=0.0, drop_path=0.0, **block):
        super().__init__()
        self.representation_size = representation_size
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = self.create_parameter((1, PATCHES + self.extra_tokens, dim))
        self.cls_token = self.create_parameter((1, 1, dim))
        self.pos_drop = nn.Dropout(drop)
        self.blocks = nn.LayerList(
            [self.block(dim, drop=drop, drop_path=drop_path * i / depth, **block) for i in range(depth)]
        )
        self.norm = nn.LayerNorm(dim, epsilon=1e-6)
        if representation_size is not None:
            self.head0, self.tanh = nn.Linear(dim, representation_size), nn.Tanh()
        self.head = nn.Linear(representation_size or dim, CLASSES)
        self.head.weight.set_value(paddle.zeros_like(self.head.weight))
        self.head.bias.set_value(paddle.full_like(self.head.bias, -10.0))

    def forward_features(self, x):
        B = paddle.shape(x)[0]
        x = self.patch_embed(x)
        cls_tokens = self.cls_token.expand((B, -1, -1))
        x = paddle.concat((cls_tokens, x), axis=1)
        x = x + self.pos_embed
        x = self.pos_drop(x)
        for blk in self.blocks:
            x = blk(x)
        x = self.norm(x)
        return x[:, 0]

    def forward(self, x):
        x = self.forward_features(x)
        if self.representation_size is not None:
            x = self.tanh(self.head0(x))
        return self.head(x)

    def load_pretrained(self, path):
        self.set_dict(paddle.load(path + ".pdparams"))


class PasslMAE(PasslViT):
    """PASSL's MAEVisionTransformer: pools in forward_features, and has lost `norm` to `fc_norm`."""

    def __init__(self, global_pool=True, **options):
        super().__init__(**options)
        self.global_pool = global_pool
        if global_pool:
            self.fc_norm = nn.LayerNorm(DIM, epsilon=1e-6)
            del self.norm

    def forward_features(self, x):
        B = x.shape[0]
        x = self.patch_embed(x)
        cls_tokens = self.cls_token.expand((B, -1, -1))
        x = paddle.concat((cls_tokens, x), axis=1)
        x = x + self.pos_embed
        x = self.pos_drop(x)
        for blk in self.blocks:
            x = blk(x)
        if self.global_pool:
            x = x[:, 1:, :].mean(axis=1)
            return self.fc_norm(x)
        return self.norm(x)[:, 0]


class PasslDistilled(PasslViT):
    """PASSL's and PaddleClas's DistilledVisionTransformer: the mean of two heads, in training too."""

    extra_tokens = 2

    def __init__(self, **options):
        super().__init__(**options)
        self.dist_token = self.create_parameter((1, 1, DIM))
        self.head_dist = nn.Linear(DIM, CLASSES)

    def forward_features(self, x):
        B = paddle.shape(x)[0]
        x = self.patch_embed(x)
        cls_tokens = self.cls_token.expand((B, -1, -1))
        dist_token = self.dist_token.expand((B, -1, -1))
        x = paddle.concat((cls_tokens, dist_token, x), axis=1)
        x = self.pos_drop(x + self.pos_embed)
        for blk in self.blocks:
            x = blk(x)
        x = self.norm(x)
        return x[:, 0], x[:, 1]

    def forward(self, x):
        x, x_dist = self.forward_features(x)
        return (self.head(x) + self.head_dist(x_dist)) / 2


class OtherNameDistilled(PasslDistilled):
    """The distillation token under a name of its own, and `class_token` in place of `cls_token`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.class_token, self.distillation_token = self.cls_token, self.dist_token
        del self.cls_token, self.dist_token

    def forward_features(self, x):
        special = paddle.concat((self.class_token, self.distillation_token), axis=1)
        x = self.patch_embed(x)
        x = paddle.concat((special.expand((paddle.shape(x)[0], -1, -1)), x), axis=1) + self.pos_embed
        for blk in self.blocks:
            x = blk(x)
        x = self.norm(x)
        return x[:, 0], x[:, 1]


class QkNormAttention(Attention):
    """timm's with qk_norm, and what is off in it: an identity before the projection, a flag."""

    def __init__(self, dim=DIM, **options):
        super().__init__(dim, **options)
        self.q_norm = nn.LayerNorm(dim // self.num_heads, epsilon=1e-6)
        self.k_norm = nn.LayerNorm(dim // self.num_heads, epsilon=1e-6)
        self.norm, self.fused_attn = nn.Identity(), False

    def heads(self, x):
        q, k, v = super().heads(x)
        return self.q_norm(q), self.k_norm(k), v


class LayerScale(nn.Layer):
    def __init__(self, dim):
        super().__init__()
        self.gamma = self.create_parameter((dim,), default_initializer=nn.initializer.Constant(1e-5))

    def forward(self, x):
        return x * self.gamma


class TimmBlock(Block):
    """timm's: LayerScale and drop path once per branch."""

    def __init__(self, dim=DIM, drop_path=0.0, **options):
        super().__init__(dim, **options)
        del self.drop_path
        self.ls1, self.ls2 = LayerScale(dim), LayerScale(dim)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), nn.Identity()

    def forward(self, x):
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class QkNormBlock(TimmBlock):
    attention = QkNormAttention


class TimmViT(PasslViT):
    """timm's: blocks in a Sequential."""

    block = QkNormBlock

    def __init__(self, **options):
        super().__init__(**options)
        self.blocks = nn.Sequential(*self.blocks)

    def forward_features(self, x):
        x = self.patch_embed(x)
        x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]


class NoClassToken(PasslViT):
    """timm's with class_token=False: every token is a patch, and the mean comes after the norm."""

    block, extra_tokens = TimmBlock, 0

    def __init__(self, **options):
        super().__init__(**options)
        del self.cls_token

    def forward_features(self, x):
        x = self.patch_embed(x) + self.pos_embed
        for blk in self.blocks:
            x = blk(x)
        return self.norm(x).mean(axis=1)


class GammaBlock(Block):
    """CaiT's and BEiT's LayerScale: two parameters of the block."""

    def __init__(self, dim=DIM, **options):
        super().__init__(dim, **options)
        self.gamma_1 = self.create_parameter((dim,))
        self.gamma_2 = self.create_parameter((dim,))

    def forward(self, x):
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class LateClassToken(PasslViT):
    """As in CaiT: the class token comes after the blocks, without a position, and attends to all patches."""

    block, extra_tokens = GammaBlock, 0

    def forward_features(self, x):
        x = self.patch_embed(x) + self.pos_embed
        for blk in self.blocks:
            x = blk(x)
        x = self.norm(x)
        attended = F.softmax(self.cls_token.matmul(x, transpose_y=True), axis=-1).matmul(x)
        return attended[:, 0]


class EmbedThenConcat(PasslViT):
    """timm's no_embed_class: positions for the patches only, then the class token in front."""

    block, extra_tokens = GammaBlock, 0

    def forward_features(self, x):
        x = self.patch_embed(x) + self.pos_embed
        x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1)
        for blk in self.blocks:
            x = blk(x)
        return self.norm(x)[:, 0]


class DinoAttention(nn.Layer):
    """PASSL's DINO: other names, and attention comes back beside its result."""

    def __init__(self, dim=DIM, num_heads=HEADS, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads, self.attn_head_size, self.all_head_size = num_heads, dim // num_heads, dim
        self.scales = self.attn_head_size**-0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.attn_dropout, self.proj_dropout = nn.Dropout(attn_drop), nn.Dropout(proj_drop)

    def forward(self, x):
        shape = [0, x.shape[1], self.num_heads, self.attn_head_size]
        q, k, v = (part.reshape(shape).transpose([0, 2, 1, 3]) for part in self.qkv(x).chunk(3, axis=-1))
        attn = self.attn_dropout(F.softmax(q.matmul(k, transpose_y=True) * self.scales, axis=-1))
        z = attn.matmul(v).transpose([0, 2, 1, 3]).reshape([0, x.shape[1], self.all_head_size])
        return self.proj_dropout(self.proj(z)), attn


class DinoBlock(Block):
    attention = DinoAttention

    def forward(self, x, return_attention=False):
        y, attn = self.attn(self.norm1(x))
        if return_attention:
            return attn
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Dino(PasslViT):
    block = DinoBlock


class Chunk(nn.LayerList):
    def forward(self, x):
        for b in self:
            x = b(x)
        return x


class ChunkedDinoV2(PasslViT):
    """DINOv2's block chunks, padded with identities; the head reads the mean of the patches as well."""

    block = TimmBlock

    def __init__(self, **options):
        super().__init__(**options)
        first, *rest = self.blocks
        self.layers = nn.LayerList([Chunk([first]), Chunk([nn.Identity(), *rest])])
        del self.blocks
        self.head = nn.Linear(2 * DIM, CLASSES)

    def forward_features(self, x):
        x = self.patch_embed(x)
        x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1) + self.pos_embed
        for chunk in self.layers:
            x = chunk(x)
        return paddle.concat([self.norm(x[:, 0]), x[:, 1:].mean(1)], axis=-1)
