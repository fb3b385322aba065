"""Measure, before a model is patched, that the patch will compute what its blocks compute; names can lie."""

from __future__ import annotations

import paddle
from paddle import nn

from tome_core.attention import attend, scaled
from tome_core.errors import PatchError
from tome_core.examine import different, line_of, random_copy, random_like, side_effects_undone
from tome_core.structure import BlockParts

_FEW = 7  # tokens; merging leaves any number of them, so a block must not mind which


def check_block(block: nn.Layer, parts: BlockParts, tokens: int, channels: int) -> None:
    """Raise PatchError unless the block is `x + attn(norm1(x))`, then `x + mlp(norm2(x))`, token by token.

    Its forward is compared with the replacement at a few tokens, as merging may leave, and at `tokens`.
    """
    with side_effects_undone():
        block = random_copy(block, {})
        for count in (_FEW, tokens):
            x = random_like(block.parameters()[0], [1, count, channels], seed=count)
            try:
                theirs = block(x)
            except Exception as error:
                raise PatchError(f"does not run on {count} tokens alone: {line_of(error)}") from error
            if not isinstance(theirs, paddle.Tensor) or list(theirs.shape) != list(x.shape):
                raise PatchError("does not return as many tokens as it gets, and nothing else")
            try:
                _compare(block, parts, x, theirs)
            except PatchError:
                raise
            except Exception as error:
                raise PatchError(
                    f"has parts that do not fit together as expected: {line_of(error)}"
                ) from error


def _compare(block: nn.Layer, parts: BlockParts, x, theirs) -> None:
    every = max(1, x.shape[1] // _FEW)  # the MLP's work is spared where it cannot tell more
    if different(_replacement(block, parts, x, every), theirs[:, ::every]):
        raise PatchError("does not compute x + attn(norm1(x)) and then x + mlp(norm2(x))")
    if x.shape[1] == _FEW:
        some = _outside_attention(block, parts, x)[:, 2:5]
        if different(_outside_attention(block, parts, x[:, 2:5]), some):
            raise PatchError("mixes tokens outside its attention")


def _replacement(block: nn.Layer, parts: BlockParts, x, every: int):
    x = x + scaled(block, parts, 0, attend(block.attn, parts, block.norm1(x), None, False)[0])
    x = x[:, ::every]
    return x + scaled(block, parts, 1, block.mlp(block.norm2(x)))


def _outside_attention(block: nn.Layer, parts: BlockParts, x):
    """All of a block that must treat each token by itself."""
    qkv = block.attn.qkv(block.norm1(x))
    values = qkv[:, :, -(qkv.shape[-1] // 3) :]
    attended = scaled(block, parts, 0, block.attn.proj(values))
    return paddle.concat([qkv, attended, scaled(block, parts, 1, block.mlp(block.norm2(x)))], axis=-1)
