"""Pictures of merged tokens: every group filled with its mean colour and outlined, as in the paper's figures.

    sources = sources_of(model, image)[-1]  # image: float32 [1, 3, 224, 224], normalised
    picture = draw_groups(pixels, sources[0], grid=(14, 14))  # pixels: the same region, uint8 [H, W, 3]

Numpy only. The same source map gives the same bytes, whether a Python model or an exported one made it.
"""

from __future__ import annotations

import numpy as np

from tome_core.errors import RequestError
from tome_core.palette import outline_colours

_SMALLEST = 3
"""Pixels a token needs each way: an outline on both sides and something in between."""


def draw_groups(
    image: np.ndarray,
    sources: np.ndarray,
    grid: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
    line: int | None = None,
) -> np.ndarray:
    """The image with each group of merged tokens in its mean colour and outlined, uint8 [H, W, 3].

    image: uint8 [H, W, 3], RGB, of any size. sources: int [tokens], the group of each input token; special
    tokens (class, distillation) come first and are not drawn. grid: (rows, columns) of patch tokens.
    box: the part of the image the model saw, (left, top, right, bottom) in pixels, None for all of it; what
    lies outside is faded. line: width of an outline in pixels, None for what fits the size.

    A group may have several parts: all have the fill and the outline of their group. An outline lies inside
    its own tokens, so between two groups there are two lines. Raises RequestError.
    """
    image, groups, edges = _checked(image, sources, grid, box)
    rows, columns = edges
    heights, widths = np.diff(rows), np.diff(columns)
    thinnest = int(min(heights.min(), widths.min()))
    line = _line_width(float(min(heights.mean(), widths.mean())), thinnest, line)

    pixels = np.outer(heights, widths)
    fills = _mean_colours(image, groups, edges, pixels)
    colours = outline_colours(fills, np.bincount(groups.ravel()), _touching(groups))

    picture = _faded(image)
    inside = fills[groups].repeat(heights, axis=0).repeat(widths, axis=1)
    outline = _outline_mask(groups, heights, widths, line)
    strokes = colours[groups].repeat(heights, axis=0).repeat(widths, axis=1)
    picture[rows[0] : rows[-1], columns[0] : columns[-1]] = np.where(outline[..., None], strokes, inside)
    return picture


def count_groups(sources: np.ndarray) -> int:
    """Tokens left, special tokens included. sources: int [tokens]."""
    return len(np.unique(sources))


def sources_of(model, image) -> list[np.ndarray]:
    """Run a patched model and return the group of each input token after every block, int32 [batch, tokens].

    model: as `tome_core.apply_patch` leaves it, with `r` set. image: float32 [batch, 3, H, W], normalised; a
    Paddle tensor or a numpy array. The model's mode and options are left as they were. Raises RequestError.
    """
    import paddle

    state = getattr(model, "tome", None)
    if state is None:
        raise RequestError("this model merges nothing: apply_patch(model) and set model.r first")
    traced, training = state.trace_source, model.training
    state.trace_source = True
    model.eval()
    try:
        with paddle.no_grad():
            model(image if isinstance(image, paddle.Tensor) else paddle.to_tensor(image))
        # Entry i enters block i; without any merging there is one entry only.
        found = (state.sources[1:] if len(state.sources) > 1 else []) or [None] * state.depth
    finally:
        state.trace_source = traced
        if training:
            model.train()
    own = np.broadcast_to(np.arange(state.tokens, dtype=np.int32), (image.shape[0], state.tokens))
    return [own.copy() if source is None else source.numpy() for source in found]


def _checked(image, sources, grid, box):
    """The image, the groups as consecutive numbers [rows, columns], and the tokens' edges in pixels."""
    image, sources = np.asarray(image), np.asarray(sources)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise RequestError(f"the image is {image.dtype} {list(image.shape)}; pass uint8 [height, width, 3]")
    patches = grid[0] * grid[1]
    if sources.ndim != 1 or not np.issubdtype(sources.dtype, np.integer) or not 0 < patches <= len(sources):
        raise RequestError(
            f"the sources are {sources.dtype} {list(sources.shape)}; pass one image's, integers, at least "
            f"{grid[0]} x {grid[1]} of them"
        )
    left, top, right, bottom = box or (0, 0, image.shape[1], image.shape[0])
    edges = _edges(top, bottom, grid[0], image.shape[0]), _edges(left, right, grid[1], image.shape[1])
    if min(np.diff(each).min() for each in edges) < _SMALLEST:
        raise RequestError(
            f"{right - left:.0f} x {bottom - top:.0f} pixels are too few to draw {grid[1]} x {grid[0]} "
            "tokens; enlarge the image"
        )
    groups = np.unique(sources[-patches:], return_inverse=True)[1].reshape(grid)
    return image, groups, edges


def _edges(start: float, end: float, tokens: int, size: int) -> np.ndarray:
    """Where tokens begin and end, int [tokens + 1]: a pixel belongs to the token that has its centre."""
    places = start + (end - start) * np.arange(tokens + 1) / tokens
    return np.clip(np.ceil(places - 0.5).astype(np.int64), 0, size)


def _line_width(usual: float, thinnest: int, wanted: int | None) -> int:
    """A sixteenth of a token, or as wanted; never so wide that a token has no inside."""
    return max(1, min(round(usual / 16) if wanted is None else wanted, (thinnest - 1) // 2))


def _mean_colours(image, groups, edges, pixels) -> np.ndarray:
    """uint8 [groups, 3], rounded to the nearest: whole numbers all the way, so the same everywhere."""
    rows, columns = edges
    seen = image[rows[0] : rows[-1], columns[0] : columns[-1]]
    sums = np.add.reduceat(seen, rows[:-1] - rows[0], axis=0, dtype=np.int64)
    sums = np.add.reduceat(sums, columns[:-1] - columns[0], axis=1)
    total = np.zeros((groups.max() + 1, 3), np.int64)
    count = np.zeros(groups.max() + 1, np.int64)
    np.add.at(total, groups, sums)
    np.add.at(count, groups, pixels)
    return ((2 * total + count[:, None]) // (2 * count[:, None])).astype(np.uint8)


def _touching(groups: np.ndarray) -> np.ndarray:
    """Pairs of groups that share a side or a corner, int [n, 2], each once."""
    sides = (
        (groups[:, :-1], groups[:, 1:]),
        (groups[:-1], groups[1:]),
        (groups[:-1, :-1], groups[1:, 1:]),
        (groups[:-1, 1:], groups[1:, :-1]),
    )
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()], axis=1) for one, other in sides])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _outline_mask(groups: np.ndarray, heights: np.ndarray, widths: np.ndarray, line: int) -> np.ndarray:
    """bool [H, W]: pixels within `line` of another group or of the border, corners included."""
    around = np.pad(groups, 1, constant_values=-1)
    mask = np.zeros((heights.sum(), widths.sum()), bool)
    tops, lefts = np.cumsum(heights) - heights, np.cumsum(widths) - widths
    for down, right in np.ndindex(3, 3):
        neighbour = around[down : down + groups.shape[0], right : right + groups.shape[1]]
        for i, j in np.argwhere(neighbour != groups):
            vertical = _strip(tops[i], heights[i], down - 1, line)
            mask[vertical, _strip(lefts[j], widths[j], right - 1, line)] = True
    return mask


def _strip(start: int, length: int, side: int, line: int) -> slice:
    """Of a token's extent, the first `line` pixels (side -1), all (0), or the last (1)."""
    if side < 0:
        return slice(start, start + line)
    return slice(start + length - line if side else start, start + length)


def _faded(image: np.ndarray) -> np.ndarray:
    """The image under a veil of white: there, but not what the picture is about."""
    return (image // 3 + 170).astype(np.uint8)
