"""Does an artifact compute what it should? One comparison for every runtime, whatever it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import ParityError
from tome_export.manifest import ParityResult
from tome_export.runtimes import open_runtime
from tome_export.samples import NOISE, PHOTO, make_batch

# fp32 rounding, about 1e-7 per operation, grown over some hundred operations in a row; measured: below 1e-5.
# A wrong operator shows at 1e-2 and more.
TOLERANCE = {"fp32": 1e-4}
BATCH_SIZES = (1, 3)


def check_runtime(
    name: str,
    bundle: Bundle,
    samples: Sequence[str],
    expected: Mapping[str, np.ndarray],
    against: str,
    precision: str = "fp32",
) -> list[ParityResult]:
    """Run a runtime on the samples, alone and in batches of 3, and compare each output with `expected`.

    expected: output name -> answers for all samples, in order. Returns one result per output.
    """
    found: dict[str, list[np.ndarray]] = {output: [] for output in expected}
    wanted: dict[str, list[np.ndarray]] = {output: [] for output in expected}
    with open_runtime(name, bundle, precision=precision) as runtime:
        for rows in _batches(samples):
            batch = make_batch(tuple(samples[row] for row in rows), bundle.manifest.preprocess)
            outputs = runtime.run(batch)
            for output in expected:
                found[output].append(outputs[output])
                wanted[output].append(expected[output][rows])
    return [
        compare(
            output,
            np.concatenate(found[output]),
            np.concatenate(wanted[output]),
            runtime=name,
            against=against,
            precision=precision,
        )
        for output in expected
    ]


def run_samples(name: str, bundle: Bundle, samples: Sequence[str]) -> dict[str, np.ndarray]:
    """A runtime's answers for all samples, one at a time."""
    with open_runtime(name, bundle) as runtime:
        runs = [runtime.run(make_batch((sample,), bundle.manifest.preprocess)) for sample in samples]
    return {output: np.concatenate([run[output] for run in runs]) for output in runs[0]}


def compare(
    output: str, found: np.ndarray, wanted: np.ndarray, *, runtime: str, against: str, precision: str
) -> ParityResult:
    """Judge one output: floats by the largest difference over the range of `wanted`, integers by equality."""
    figures: dict[str, Callable | float | None]
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise ParityError(
            f"{runtime}: {output} is {found.dtype} {list(found.shape)}, "
            f"{against} says {wanted.dtype} {list(wanted.shape)}"
        )
    if np.issubdtype(wanted.dtype, np.integer):
        tolerance = 0.0
        max_abs = float(np.abs(found.astype(np.int64) - wanted).max())
        max_rel = float((found != wanted).mean())
        figures = {"cosine_min": None, "top1_agreement": None, "merge_agreement": 1 - max_rel}
    else:
        tolerance = TOLERANCE[precision]
        found, wanted = found.astype(np.float64), wanted.astype(np.float64)
        with np.errstate(all="ignore"):
            max_abs = float(np.abs(found - wanted).max())
            max_rel = max_abs / max(float(np.ptp(wanted)), 1e-30)
            norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
            cosine = np.nan_to_num((found * wanted).sum(-1) / np.maximum(norms, 1e-30), nan=-1.0)
        if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
            # As wrong as can be, on either side; and JSON cannot hold NaN.
            max_abs = max_rel = float(np.finfo(np.float32).max)
        top1 = found.argmax(-1) == wanted.argmax(-1)
        figures = {
            "cosine_min": float(cosine.min()),
            "top1_agreement": float(top1.mean()),
            "merge_agreement": None,
        }
    return ParityResult(
        runtime=runtime,
        precision=precision,
        output=output,
        against=against,
        batch_sizes=BATCH_SIZES,
        max_abs=max_abs,
        max_rel=max_rel,
        tolerance=tolerance,
        passed=max_rel <= tolerance,
        **figures,
    )


def require(results: Sequence[ParityResult]) -> None:
    """Raises ParityError that names each output that disagrees, and by how much."""
    failed = [result for result in results if not result.passed]
    if failed:
        raise ParityError("; ".join(describe(result) for result in failed))


def describe(result: ParityResult) -> str:
    """One result in words: "onnx logits differ from dygraph by 0.31 of their range (allowed 1e-04)"."""
    if result.merge_agreement is not None:
        return (
            f"{result.runtime} {result.output} differ from {result.against} for "
            f"{result.max_rel:.2%} of the tokens"
        )
    return (
        f"{result.runtime} {result.output} differ from {result.against} by {result.max_rel:.2g} of their "
        f"range (allowed {result.tolerance:.0e}), {result.max_abs:.3g} absolute"
    )


def _batches(samples: Sequence[str]) -> list[list[int]]:
    """Rows of the batches to run: the first of each kind alone, then each kind together."""
    kinds = [[row for row, name in enumerate(samples) if name.startswith(kind)] for kind in (PHOTO, NOISE)]
    return [rows[:1] for rows in kinds] + kinds
