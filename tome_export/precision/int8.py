"""The ONNX model in int8, for ONNX Runtime's CPU provider."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from tome_export.errors import MissingExtraError, RequestError
from tome_export.precision.made import SOURCE, Made, in_child
from tome_export.precision.pictures import Pictures, prepare
from tome_export.preprocess import Preprocess

FILE = "inference.int8.onnx"
_NEEDS = ("onnx", "onnxruntime", "ml_dtypes")


def check() -> None:
    """Raises MissingExtraError if a package that quantises is not there."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        extra = "onnx" if "onnxruntime" in missing else "int8"
        raise MissingExtraError(
            f'int8 needs the {" and ".join(missing)} package: pip install "tome-export[{extra}]"'
        )


def make(folder: Path, kept: Sequence[int], recipe: Preprocess, calibration: Pictures | None = None) -> Made:
    """Write `inference.int8.onnx` beside `inference.onnx` in `folder`.

    Weights are int8, symmetric, one scale an output channel; activations uint8, one scale a tensor: found
    anew in every run, or fixed from `calibration`, prepared by `recipe`. The layers of the blocks' attention
    and MLP are quantised but for the columns of the merging metric; everything else stays in float, and so do
    the blocks in `kept`. Raises ConversionError, RequestError.
    """
    scratch = folder / "calibration"
    count = 0
    try:
        if calibration is not None:
            scratch.mkdir()
            for image in prepare(calibration, recipe):
                np.save(scratch / f"{count}.npy", image)
                count += 1
        arguments = {"kept": list(kept), "calibration": [str(scratch / f"{i}.npy") for i in range(count)]}
        said = in_child(
            "tome_export.precision.int8_child",
            folder / SOURCE,
            folder / FILE,
            arguments,
            "ONNX Runtime could not quantise the model",
        )
    finally:
        for path in scratch.glob("*.npy"):
            path.unlink()
        if scratch.is_dir():
            scratch.rmdir()
    if said["layers"] == 0:
        raise RequestError("no layer of this model can be quantised; leave out --precision int8")
    return Made("int8", (FILE,), said["opset"], said["layers"], "static" if count else "dynamic", count)


def judged(file: Path) -> Path:
    """See `tome_export.precision.makers.Maker`."""
    return file


def variants(full: Path, reduced: Path, kept: Collection[int]) -> Callable:
    """See `tome_export.precision.makers.Maker`."""
    import onnx

    from tome_export.precision.layers import back_to_float, split_metric

    split, quantised = onnx.load(full), onnx.load(reduced)
    split_metric(split, kept)
    return lambda blocks: back_to_float(quantised, split, blocks)
