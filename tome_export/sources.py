"""From the decisions of each merging block to the group of every input token after it. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tome_export.errors import BundleError


def block_labels(found: Mapping[str, np.ndarray], depth: int) -> list[np.ndarray | None]:
    """What each block decided, as `sources_after_blocks` takes it; None where nothing merges.

    found: outputs and tensors by name, of a runtime that was opened with `taps=True`.
    """
    return [found.get(f"block{block}.label") for block in range(depth)]


def sources_after_blocks(
    labels: Sequence[np.ndarray | None], tokens: int, class_token: bool, distill_token: bool = False
) -> list[np.ndarray]:
    """The group of each input token after every block, int32 [batch, tokens] each.

    labels: for each block, int64 [batch, tokens that enter it], as `tome_core.matching.Match.label`: a
    destination and what merges into it carry the destination's odd index; unmerged tokens of the other set
    ..., -5, -3, -1 in output order. None, or every token its own index, if the block merges nothing.
    tokens: entering the first block. class_token, distill_token: as for `bipartite_soft_matching`.

    What leaves a block is the unmerged tokens, then the destinations; with a distillation token (1), which is
    a destination that receives nothing, it stays behind the class token (0). Raises BundleError for labels
    that no such match has.
    """
    batch = next((len(each) for each in labels if each is not None), 1)
    sources = np.tile(np.arange(tokens, dtype=np.int32), (batch, 1))
    found = []
    for block, label in enumerate(labels):
        if label is not None:
            left = int(sources.max()) + 1
            try:
                place = _places(np.asarray(label), batch, left, class_token, distill_token)
            except ValueError as error:
                raise BundleError(f"block {block} reports no token merging: {error}") from None
            sources = np.take_along_axis(place, sources, axis=1)
        found.append(sources)
    return found


def _places(label, batch: int, tokens: int, class_token: bool, distill_token: bool) -> np.ndarray:
    """The output position of each token that enters a block, int32 [batch, tokens]."""
    if label.shape != (batch, tokens):
        raise ValueError(f"labels of shape {list(label.shape)}, expected {[batch, tokens]}")
    whole = np.rint(np.nan_to_num(label.astype(np.float64), nan=np.inf).clip(-2 * tokens, tokens))
    if not np.array_equal(whole, label):
        raise ValueError("labels that are no whole numbers in range")
    index, whole = np.arange(tokens), whole.astype(np.int64)
    if np.array_equal(whole, np.tile(index, (batch, 1))):
        return whole.astype(np.int32)
    odd, even = whole[:, 1::2], whole[:, ::2]
    if not np.array_equal(odd, np.tile(index[1::2], (batch, 1))):
        raise ValueError("an odd token that is not its own destination")
    kept = int((even[0] < 0).sum())
    numbers = np.append(2 * np.arange(kept) + 1 - 2 * kept, [0] * (even.shape[1] - kept))
    if ((even >= 0) & (even % 2 == 0)).any() or (np.sort(np.minimum(even, 0), axis=1) != numbers).any():
        raise ValueError("unmerged tokens that are not numbered through")
    if class_token and (whole[:, 0] != 1 - 2 * kept).any():
        raise ValueError("a class token that merged away")
    place = kept + (whole - 1) // 2
    if not distill_token:
        return place.astype(np.int32)
    if (even == 1).any():
        raise ValueError("a distillation token that received another")
    place += (whole < 0) & (place > 0)
    return np.where(whole == 1, 1, place).astype(np.int32)
