"""Merge decisions as numbers: are they valid, do they follow from their similarities, do two runtimes agree?

Works on what a patched model shows of a block (`tome_core.schedule.tap_names`), for one image: `scores`,
float32 [tokens, tokens], and `label`, int64 [tokens]; their meaning is that of `tome_core.matching`.

If every similarity of two runtimes differs by at most `noise`, and each picks its own largest, then what
one picks is at most 2 * noise below the other's pick: for a destination, and for the place in the ranking
that decides what merges. So a disagreement beyond that cannot come from rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ALLOWED = -2.0  # similarities of allowed pairs are at least -1, forbidden ones at most -3
_TINY = 1e-9  # far below the spacing of float32 near 1; for rounding in this file's own subtraction


@dataclass(frozen=True)
class Block:
    """What is fixed about one block's merging."""

    tokens: int
    r: int
    class_token: bool
    distill_token: bool

    @property
    def unmerged(self) -> np.ndarray:
        """int64, the labels of the sources that stay, in output order."""
        return _numbered((self.tokens + 1) // 2 - self.r)

    @property
    def sources(self) -> np.ndarray:
        """bool [tokens]: may merge into another."""
        index = np.arange(self.tokens)
        return (index % 2 == 0) & ~(self.class_token & (index == 0))

    @property
    def destinations(self) -> np.ndarray:
        """bool [tokens]: may receive another."""
        index = np.arange(self.tokens)
        return (index % 2 == 1) & ~(self.distill_token & (index == 1))


@dataclass(frozen=True)
class Agreement:
    """One block of one image: `decisions` = `agreed` + `near_ties` + len(`faults`), faults in words."""

    decisions: int
    agreed: int
    near_ties: int
    faults: tuple[str, ...]


def select(scores: np.ndarray, block: Block) -> np.ndarray:
    """The labels that follow from these similarities; ties go to the lower index. int64 [tokens]."""
    order = np.argsort(-scores.max(-1), kind="stable")
    index, merged = np.arange(block.tokens), order[: block.r]
    label = np.where(index % 2 == 1, index, 0)
    label[merged] = scores[merged].argmax(-1)
    kept = np.setdiff1d(index[::2], merged) if block.class_token else order[block.r : (block.tokens + 1) // 2]
    label[kept] = _numbered(len(kept))
    return label


def mask_problem(scores: np.ndarray, block: Block) -> str | None:
    """What is wrong with the pairs that these similarities allow, in words."""
    expected = np.outer(block.sources, block.destinations)
    allowed = scores > _ALLOWED
    if (allowed == expected).all():
        return None
    if _only(allowed.any(1), 1) and _only(allowed.any(0), 0):
        return "sources and destinations are swapped: odd tokens merge into even ones"
    if block.class_token and allowed[0].any():
        return "the class token is not protected: it may merge into another"
    if block.distill_token and allowed[:, 1].any():
        return "the distillation token is not protected: others may merge into it"
    return f"{int((allowed != expected).sum())} pairs are allowed that should not be, or the reverse"


def label_problem(label: np.ndarray, block: Block) -> str | None:
    """What is wrong with these labels whatever the similarities, in words."""
    index = np.arange(block.tokens)
    even, odd = label[0::2], label[1::2]
    merged = even[even >= 0]
    if block.class_token and label[0] >= 0:
        return "the class token merged into another"
    if (odd != index[1::2]).any():
        return "a token merged that is in the set of destinations"
    if len(merged) != block.r:
        return f"{len(merged)} tokens merged instead of {block.r}"
    if not set(merged.tolist()) <= set(index[block.destinations].tolist()):
        return "a token merged into one that may not receive any"
    left = even[even < 0]
    if not np.array_equal(left if block.class_token else np.sort(left), block.unmerged):
        return "the tokens that are left are out of order"
    return None


def check_own(label: np.ndarray, scores: np.ndarray, block: Block) -> Agreement:
    """Do valid labels follow from the runtime's own similarities? Near ties here are exact ones, decided for
    another than the lower index."""
    return compare(label, select(scores, block), scores, 0.0, block)


def compare(
    label: np.ndarray, wanted: np.ndarray, scores: np.ndarray, noise: float, block: Block
) -> Agreement:
    """Valid labels of a runtime against those of the reference, which has `scores` and was told to merge
    what the runtime merged in all blocks before. noise: largest difference of similarity that rounding
    explains."""
    label, wanted, scores = label.astype(np.int64), wanted.astype(np.int64), scores.astype(np.float64)
    if block.class_token:  # then it is decided which tokens are left, but not in which order
        label, wanted = np.maximum(label, -1), np.maximum(wanted, -1)
    best = scores.max(-1)
    ranked = -np.sort(-best)
    near, faults = 0, []
    candidates = np.flatnonzero(block.sources)
    for token in candidates[label[candidates] != wanted[candidates]]:
        margin = max(
            _pick_margin(token, label, scores, best), _rank_margin(token, label, best, ranked, block)
        )
        if margin <= 2 * noise + _TINY:
            near += 1
        else:
            faults.append(_words(token, label, wanted, margin, noise))
    return Agreement(len(candidates), len(candidates) - near - len(faults), near, tuple(faults))


def margin(scores: np.ndarray, block: Block) -> float:
    """How far these similarities are from another decision: the smallest difference between a merged token's
    destination and its second best, and between the last pair that merges and the first that does not."""
    scores = scores.astype(np.float64)
    best = scores.max(-1)
    order = np.argsort(-best, kind="stable")
    two = np.sort(scores[order[: block.r]], axis=-1)[:, -2:]
    return float(min((two[:, 1] - two[:, 0]).min(), best[order[block.r - 1]] - best[order[block.r]]))


def _pick_margin(token: int, label: np.ndarray, scores: np.ndarray, best: np.ndarray) -> float:
    """How much more similar than the runtime's destination the best one is."""
    return best[token] - scores[token, label[token]] if label[token] >= 0 else 0.0


def _rank_margin(token: int, label: np.ndarray, best: np.ndarray, ranked: np.ndarray, block: Block) -> float:
    """How far the token's best similarity is from those whose place the runtime gave it."""
    if label[token] >= 0:
        return ranked[block.r - 1] - best[token]
    if block.class_token:
        return best[token] - ranked[block.r]
    return abs(best[token] - ranked[block.r + np.searchsorted(block.unmerged, label[token])])


def _words(token: int, label: np.ndarray, wanted: np.ndarray, margin: float, noise: float) -> str:
    did, should = (f"into token {to[token]}" if to[token] >= 0 else "nowhere" for to in (label, wanted))
    allowed = f"rounding explains {2 * noise:.1e}" if noise else "these are its own similarities"
    return f"token {token} goes {did}, but {should} is better by {margin:.1e} in similarity ({allowed})"


def _numbered(count: int) -> np.ndarray:
    """The labels of so many unmerged tokens: ..., -5, -3, -1."""
    return 2 * np.arange(count) + 1 - 2 * count


def _only(some: np.ndarray, parity: int) -> bool:
    """Whether `some` tokens are chosen, all even (0) or all odd (1)."""
    return bool(some[parity::2].any()) and not some[1 - parity :: 2].any()
