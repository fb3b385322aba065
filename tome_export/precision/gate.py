"""Does the model in reduced precision predict what the float one predicts, on the user's own pictures?

Held to the float ONNX artifact, which parity holds to the Python model a thousand times more closely, or to
the Paddle one where there is no other. Random weights give logits that say nothing about pictures, and often
nearly equal ones: then the figures are recorded, and no floor is set unless one was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import AccuracyError
from tome_export.manifest import Manifest
from tome_export.parity.figures import compare
from tome_export.precision.made import Made
from tome_export.precision.makers import MAKERS
from tome_export.precision.pictures import Pictures, prepare
from tome_export.precision.result import PrecisionResult
from tome_export.precision.sensitivity import Sensitivity, find_sensitivity
from tome_export.runtimes import RUNTIMES, open_runtime
from tome_export.runtimes.onnx_runtime import start_session
from tome_export.steps import Steps

MIN_AGREEMENT = 0.99
_MAKES = Made("", (), 0, 0, "engine")  # what is known of a precision that an engine makes by itself


@dataclass(frozen=True)
class Judged:
    """A model in reduced precision: made as an artifact, or (made is None) by the engine of the runtime."""

    precision: str
    runtime: str
    made: Made | None = None


def floor(manifest: Manifest, asked: float | None) -> float | None:
    """The smallest share of pictures with the same best class; None for no floor."""
    random = manifest.weights.seed is not None or manifest.weights.reset_head
    return asked if asked is not None else None if random else MIN_AGREEMENT


def judge_precisions(
    bundle: Bundle,
    judged: Sequence[Judged],
    pictures: Pictures,
    kept: Sequence[int],
    min_agreement: float | None,
    steps: Steps,
) -> tuple[PrecisionResult, ...]:
    """Measure each, and hold it to the floor.

    Raises AccuracyError, which says what blocks to keep in float and what that gives.
    """
    formats = [artifact.format for artifact in bundle.manifest.artifacts if artifact.precision == "fp32"]
    against = "onnx" if "onnx" in formats else formats[0]
    with steps("accuracy"):
        wanted = _logits(bundle, against, "fp32", pictures)
    results = []
    for each in judged:
        made = each.made or _MAKES
        with steps(f"  {each.runtime} {each.precision}"):
            if each.made:
                found = _logits_of_artifact(bundle, each.precision, pictures)
            else:
                found = _logits(bundle, each.runtime, each.precision, pictures)
        result = PrecisionResult(
            format=RUNTIMES[each.runtime].reads,
            precision=each.precision,
            method=made.method,
            calibrated=made.calibrated,
            layers=made.layers,
            kept=tuple(kept) if each.made else (),
            against=f"{against} fp32",
            inputs=len(wanted),
            source=pictures.source,
            figures=compare(found, wanted),
            min_agreement=floor(bundle.manifest, min_agreement),
            runtime=None if each.made else each.runtime,
        )
        if not result.passed:
            raise AccuracyError(_why(bundle, result, pictures, steps))
        results.append(result)
    return tuple(results)


def _logits(bundle: Bundle, runtime: str, precision: str, pictures: Pictures) -> np.ndarray:
    """float32 [pictures, classes], one picture at a time, so that none depends on others."""
    with open_runtime(runtime, bundle, precision=precision) as opened:
        return np.concatenate(
            [opened.run(image)["logits"] for image in prepare(pictures, bundle.manifest.preprocess)]
        )


def _logits_of_artifact(bundle: Bundle, precision: str, pictures: Pictures) -> np.ndarray:
    file = bundle.file(bundle.artifact("onnx", precision), ".onnx")
    session = start_session(MAKERS[precision].judged(file), file.parent)
    name = bundle.manifest.inputs[0].name
    images = prepare(pictures, bundle.manifest.preprocess)
    return np.concatenate([session.run(["logits"], {name: image})[0] for image in images])


def _why(bundle: Bundle, result: PrecisionResult, pictures: Pictures, steps: Steps) -> str:
    if result.runtime is not None:
        return f"{_said(result)}; its engine takes no blocks to keep in float: {_OTHERWISE}"
    artifacts = bundle.artifact("onnx"), bundle.artifact("onnx", result.precision)
    full, reduced = (bundle.file(each, ".onnx") for each in artifacts)
    where = find_sensitivity(full, reduced, result, pictures, bundle.manifest, steps)
    return _advice(result, where)


_OTHERWISE = "leave this precision out, or ask for a lower --min-agreement"


def _said(result: PrecisionResult) -> str:
    """How far it is off."""
    of = f"{result.inputs} {'pictures' if result.source == 'pictures' else 'synthetic samples'}"
    who = f"{result.runtime} {result.precision}" if result.runtime else result.precision
    return (
        f"{who} predicts what fp32 does on {result.figures.top1_agreement:.2%} of {of}, "
        f"{result.min_agreement:.2%} asked"
    )


def _advice(result: PrecisionResult, where: Sensitivity) -> str:
    """One line: how far it is off, which blocks cost most, and what keeping them in float gives."""
    said = _said(result)
    if not where.order:
        return f"{said}; keeping blocks in float does not help"
    cost = ", ".join(f"{block} ({where.gain[block]:.0%})" for block in where.order[:3])
    keep = ",".join(map(str, sorted({*result.kept, *where.keep})))
    gives = f"--keep-float {keep} gives {where.agreement:.2%}"
    if not where.enough:
        gives = f"even {gives}; it needs more blocks in float, or a lower --min-agreement"
    return f"{said}; the blocks that cost most, by their share of the error: {cost}; {gives}"
