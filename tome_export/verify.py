"""Prove a finished bundle again without the Python model: its hashes, and its runtimes against each other."""

from __future__ import annotations

from pathlib import Path

from tome_export.bundle import Bundle
from tome_export.errors import BundleError
from tome_export.manifest import ParityResult
from tome_export.parity import check_runtime, require, run_samples
from tome_export.steps import Steps


def verify_bundle(folder: Path, steps: Steps | None = None) -> tuple[ParityResult, ...]:
    """Raises BundleError for a changed file or nothing to check, ParityError for runtimes that disagree.

    The first artifact's runtime is what the others are compared with, on the samples that the manifest names.
    """
    steps = steps or Steps()
    bundle = Bundle.open(folder)
    with steps("hashes"):
        bundle.verify_hashes()
    if not (bundle.manifest.artifacts and bundle.manifest.parity_samples):
        raise BundleError(f"{folder}: its manifest names no model or no parity sample; export it again")
    first, *others = bundle.manifest.artifacts
    results: list[ParityResult] = []
    with steps("parity"):
        expected = run_samples(first.format, bundle, bundle.manifest.parity_samples)
        for artifact in others:
            results += check_runtime(
                artifact.format, bundle, bundle.manifest.parity_samples, expected, against=first.format
            )
    require(results)
    return tuple(results)
