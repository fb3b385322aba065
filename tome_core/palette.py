"""Outline colours that tell neighbouring groups apart. Numpy only."""

from __future__ import annotations

import numpy as np

# Picked for the largest least distance in OKLab among saturated colours of middle lightness: far from one
# another, and from the muted colours of photographs. The first ones are used first.
PALETTE = np.array(
    [
        [255, 90, 0], [0, 195, 255], [255, 210, 0], [255, 0, 200], [60, 215, 50], [150, 120, 255],
        [105, 255, 225], [255, 165, 240], [30, 60, 255], [165, 45, 120], [30, 120, 0], [120, 180, 90],
    ],
    np.uint8,
)  # fmt: skip
"""uint8 [colours, 3], RGB."""

_ENOUGH = 0.22  # a distance in OKLab at which two thin lines look plainly different


def outline_colours(fills: np.ndarray, weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The colour of each group's outline, uint8 [groups, 3]: of `PALETTE`, or for a single token quiet.

    fills: uint8 [groups, 3], what each outline must stand out from. weights: int [groups], tokens in each;
    the largest choose first. pairs: int [n, 2], groups that touch. Repeatable: no random numbers.
    """
    several = weights > 1
    pairs = pairs[several[pairs].all(1)]
    neighbours: list[list[int]] = [[] for _ in fills]
    for one, other in pairs.tolist():
        neighbours[one].append(other)
        neighbours[other].append(one)
    palette = _oklab(PALETTE)
    apart = np.minimum(_distances(palette, palette), _ENOUGH)
    from_fill = np.minimum(_distances(_oklab(fills), palette), _ENOUGH)
    chosen, used = np.full(len(fills), -1), np.zeros(len(palette))
    for group in np.argsort(-weights, kind="stable")[: several.sum()].tolist():
        score = from_fill[group].copy()
        for other in neighbours[group]:
            if chosen[other] >= 0:
                score = np.minimum(score, apart[chosen[other]])
        # Among colours that serve alike, the least used: parts of one group stay recognisable.
        best = np.flatnonzero(score >= score.max() - 0.03)
        chosen[group] = best[np.argmin(used[best])]
        used[chosen[group]] += 1
    return np.where(several[:, None], PALETTE[chosen], _quiet(fills))


def _quiet(fills: np.ndarray) -> np.ndarray:
    """A third of the way to white from dark fills, to black from light ones."""
    light = (fills.astype(np.int64) @ _LUMA) >= 140 * _LUMA.sum()
    return ((2 * fills.astype(np.int64) + np.where(light, 0, 255)[:, None]) // 3).astype(np.uint8)


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.sqrt(((some[:, None] - others[None]) ** 2).sum(-1))


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB, uint8 [..., 3] -> OKLab, in which distance follows what the eye sees (Ottosson, 2020)."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ _TO_CONES.T)
    return cones @ _TO_LAB.T


_LUMA = np.array([299, 587, 114])
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
