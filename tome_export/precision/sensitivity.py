"""Which blocks cost a reduced model its accuracy: each back in float by itself, then the worst together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.manifest import Manifest
from tome_export.precision.makers import MAKERS
from tome_export.precision.pictures import Pictures, prepare, spread
from tome_export.precision.result import PrecisionResult
from tome_export.runtimes.onnx_runtime import start_session
from tome_export.steps import Steps

_INPUTS = 32  # for the error of each block; the agreement with the worst in float is measured on all


@dataclass(frozen=True)
class Sensitivity:
    """gain: block -> share of the error of the logits that goes away with it in float; below zero, it grows.
    order: blocks that help, best first. keep: the first of these, with which top-1 agreement is `agreement`.
    enough: that is what was asked."""

    gain: dict[int, float]
    order: tuple[int, ...]
    keep: tuple[int, ...]
    agreement: float
    enough: bool


def find_sensitivity(
    full: Path,
    reduced: Path,
    result: PrecisionResult,
    pictures: Pictures,
    manifest: Manifest,
    steps: Steps,
) -> Sensitivity:
    """full, reduced: the ONNX files. A model is run for each block on up to 32 pictures; then blocks are put
    back, best first, up to half of them, until the top-1 agreement is what `result` was held to.

    The error is the root mean square difference of the logits, mean over pictures.
    """
    few = Pictures(spread(pictures.names, _INPUTS), pictures.source)
    variants = _Variants(full, reduced, result, manifest)
    with steps("accuracy, blocks"):
        wanted = variants.logits(few, None)
        base = _error(variants.logits(few, ()), wanted)
    gain = {}
    for block in [each for each in range(manifest.model.depth) if each not in result.kept]:
        with steps(f"  block {block} in float"):
            gain[block] = _saved(_error(variants.logits(few, (block,)), wanted), base)
    if np.isinf(base) and not any(gain.values()):  # several blocks overflow
        for block in gain:
            with steps(f"  only block {block} reduced"):
                error = _error(variants.logits(few, [each for each in gain if each != block]), wanted)
                gain[block] = float(np.isinf(error))
    order = tuple(sorted((block for block in gain if gain[block] > 0), key=lambda block: -gain[block]))
    keep: tuple[int, ...] = ()
    agreement = result.figures.top1_agreement
    if order:
        with steps("accuracy, blocks"):
            best = variants.logits(pictures, None).argmax(-1)
        for count in range(1, min(len(order), max(1, manifest.model.depth // 2)) + 1):
            keep = tuple(sorted(order[:count]))
            with steps(f"  blocks {','.join(map(str, keep))} in float"):
                agreement = _agreement(variants.logits(pictures, keep), best)
            if agreement >= result.min_agreement:
                break
    return Sensitivity(gain, order, keep, agreement, agreement >= result.min_agreement)


class _Variants:
    """The reduced model with some blocks in float again."""

    def __init__(self, full: Path, reduced: Path, result: PrecisionResult, manifest: Manifest) -> None:
        self._full, self._manifest = full, manifest
        self._variant = MAKERS[result.precision].variants(full, reduced, result.kept)

    def logits(self, pictures: Pictures, blocks: Collection[int] | None) -> np.ndarray:
        """float32 [pictures, classes]; None: of the float model."""
        model = self._full if blocks is None else self._variant(blocks).SerializeToString()
        session = start_session(model, self._full.parent)
        name = self._manifest.inputs[0].name
        images = prepare(pictures, self._manifest.preprocess)
        return np.concatenate([session.run(["logits"], {name: image})[0] for image in images])


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Infinite where something is not finite, as after an overflow of float16."""
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.sqrt(((found - wanted).astype(np.float64) ** 2).mean(-1)).mean())


def _saved(error: float, base: float) -> float:
    """The share of `base` that is gone."""
    if np.isinf(base):
        return 0.0 if np.isinf(error) else 1.0
    return 1 - error / max(base, 1e-30)


def _agreement(logits: np.ndarray, best: np.ndarray) -> float:
    """What is not a number agrees with nothing."""
    return float(((logits.argmax(-1) == best) & np.isfinite(logits).all(-1)).mean())
