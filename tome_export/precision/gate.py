"""Does the model in reduced precision predict what the float one predicts, on the user's own pictures?

Held to the float ONNX artifact, which parity holds to the Python model a thousand times more closely. Random
weights give logits that say nothing about pictures, and often nearly equal ones: then the figures are
recorded, and no floor is set unless one was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import AccuracyError
from tome_export.manifest import Artifact, Manifest
from tome_export.parity.figures import compare
from tome_export.precision.int8 import Quantised
from tome_export.precision.pictures import Pictures, prepare
from tome_export.precision.result import PrecisionResult
from tome_export.precision.sensitivity import Sensitivity, find_sensitivity
from tome_export.runtimes.onnx_runtime import start_session
from tome_export.steps import Steps

MIN_AGREEMENT = 0.99


def floor(manifest: Manifest, asked: float | None) -> float | None:
    """The smallest share of pictures with the same best class; None for no floor."""
    random = manifest.weights.seed is not None or manifest.weights.reset_head
    return asked if asked is not None else None if random else MIN_AGREEMENT


def judge_precision(
    bundle: Bundle,
    artifact: Artifact,
    how: Quantised,
    pictures: Pictures,
    kept: Sequence[int],
    min_agreement: float | None,
    steps: Steps,
) -> PrecisionResult:
    """Measure, and hold to the floor.

    Raises AccuracyError, which says what blocks to keep in float and what that gives.
    """
    full, reduced = (bundle.file(each, ".onnx") for each in (bundle.artifact("onnx"), artifact))
    with steps("accuracy"):
        wanted, found = _logits([full, reduced], pictures, bundle.manifest)
    result = PrecisionResult(
        format=artifact.format,
        precision=artifact.precision,
        method=how.method,
        calibrated=how.calibrated,
        layers=how.layers,
        kept=tuple(kept),
        against="onnx fp32",
        inputs=len(wanted),
        source=pictures.source,
        figures=compare(found, wanted),
        min_agreement=floor(bundle.manifest, min_agreement),
    )
    if not result.passed:
        where = find_sensitivity(full, reduced, result, pictures, bundle.manifest, steps)
        raise AccuracyError(_advice(result, where))
    return result


def _logits(files: Sequence[Path], pictures: Pictures, manifest: Manifest) -> list[np.ndarray]:
    """float32 [pictures, classes] by each model, one picture at a time, so that none depends on others."""
    sessions: list[Any] = [start_session(file, file.parent) for file in files]
    found: list[list[np.ndarray]] = [[] for _ in files]
    for image in prepare(pictures, manifest.preprocess):
        for session, logits in zip(sessions, found, strict=True):
            logits.append(session.run(["logits"], {manifest.inputs[0].name: image})[0])
    return [np.concatenate(logits) for logits in found]


def _advice(result: PrecisionResult, where: Sensitivity) -> str:
    """One line: how far it is off, which blocks cost most, and what keeping them in float gives."""
    of = f"{result.inputs} {'pictures' if result.source == 'pictures' else 'synthetic samples'}"
    said = (
        f"{result.precision} predicts what fp32 does on {result.figures.top1_agreement:.2%} of {of}, "
        f"{result.min_agreement:.2%} asked"
    )
    if not where.order:
        return f"{said}; keeping blocks in float does not help"
    cost = ", ".join(f"{block} ({where.gain[block]:.0%})" for block in where.order[:3])
    keep = ",".join(map(str, sorted({*result.kept, *where.keep})))
    gives = f"--keep-float {keep} gives {where.agreement:.2%}"
    if not where.enough:
        gives = f"even {gives}; it needs more blocks in float, or a lower --min-agreement"
    return f"{said}; the blocks that cost most, by their share of the error: {cost}; {gives}"
