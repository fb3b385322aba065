"""Classify image files with a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.bundle import Bundle
from tome_export.preprocess import load_inputs
from tome_export.runtimes import open_runtime


@dataclass(frozen=True)
class Prediction:
    """A class with its softmax probability; `label` is its name, or "class N" if the bundle has no names."""

    index: int
    label: str
    probability: float


def predict_files(
    folder: Path,
    photos: Sequence[Path],
    runtime: str = "",
    top: int = 5,
    device: str = "cpu",
    precision: str = "fp32",
) -> tuple[str, list[list[Prediction]]]:
    """The runtime's name and version, and for each photo its `top` classes, best first.

    runtime: of `tome_export.runtimes.RUNTIMES`; "" takes the first format the bundle holds in this precision.
    Raises BundleError, ImageError, RequestError, MissingExtraError.
    """
    bundle = Bundle.open(folder)
    images = [load_inputs(path, [bundle.manifest.preprocess])[0] for path in photos]
    name = runtime or bundle.first_format(precision)
    predictions = []
    with open_runtime(name, bundle, device=device, precision=precision) as opened:
        for image in images:
            logits = opened.run(image)["logits"][0]
            predictions.append(best_classes(logits, bundle.manifest.labels, top))
        return f"{opened.name} {opened.version}", predictions


def best_classes(logits: np.ndarray, labels: Sequence[str] | None, top: int) -> list[Prediction]:
    """The `top` classes of one image's logits [classes], best first."""
    exponential = np.exp(logits.astype(np.float64) - logits.max())
    probability = exponential / exponential.sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return [
        Prediction(int(index), labels[index] if labels else f"class {index}", float(probability[index]))
        for index in order
    ]
