"""Apply a `Match`. Merging is linear, so each function is a product with the match's 0/1 matrix M.

M is [batch, tokens_out, tokens_in] and each of its columns holds a single 1:
sum = M x, weighted average = M (x * size) / (M size), unmerge = M^T y. A matrix product is the one form
that every runtime executes correctly, in any precision (docs/merging.md compares it with the others).
"""

from __future__ import annotations

import paddle

from tome_core.matching import Match
from tome_core.ops import exactly, fresh


@exactly
def merge_sum(match: Match, x: paddle.Tensor) -> paddle.Tensor:
    """Sum of each group: [batch, tokens_in, channels] -> [batch, tokens_out, channels]."""
    return match.matrix.astype(x.dtype).matmul(x)


@exactly
def merge_mean(match: Match, x: paddle.Tensor) -> paddle.Tensor:
    """Unweighted mean of each group: [batch, tokens_in, channels] -> [batch, tokens_out, channels]."""
    return merge_wavg(match, x)[0]


@exactly
def merge_wavg(
    match: Match, x: paddle.Tensor, size: paddle.Tensor | None = None
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Average of each group weighted by token size (paper, section 3, "Tracking Token Size").

    x: [batch, tokens_in, channels]. size: how many patches each token stands for,
    [batch, tokens_in, 1]; None means 1 each.
    Returns the merged tokens and their sizes, [batch, tokens_out, channels] in the dtype of x and
    [batch, tokens_out, 1] in float32 (float64 if x is), whatever precision the tokens have.
    """
    matrix = match.matrix.astype("float64") if x.dtype == paddle.float64 else match.matrix
    if size is None:
        merged_size = matrix.sum(-1, keepdim=True)
        weights = matrix * fresh(merged_size).reciprocal()  # others may read the matrix: see `fresh`
    else:
        shares = matrix * size.reshape([-1, 1, match.tokens_in]).astype(matrix.dtype)
        merged_size = shares.sum(-1, keepdim=True)
        weights = shares / merged_size
    return weights.astype(x.dtype).matmul(x), merged_size


@exactly
def merge_source(match: Match, source: paddle.Tensor | None = None) -> paddle.Tensor:
    """Follow each input token of the model to its present group.

    source: int32 [batch, input tokens], the group of each before this match; None means its own.
    Returns the same after this match.
    """
    group = match.group.astype("int32")
    if source is None:
        return group
    return paddle.take_along_axis(group, source, axis=1, broadcast=False)


@exactly
def unmerge(match: Match, y: paddle.Tensor) -> paddle.Tensor:
    """Give each input token the value of its group: [batch, tokens_out, c] -> [batch, tokens_in, c]."""
    return match.matrix.astype(y.dtype).matmul(y, transpose_x=True)
