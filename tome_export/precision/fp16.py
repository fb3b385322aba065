"""The ONNX model in float16, for GPUs: half of the size, and the precision in the graph, where TensorRT 11
wants it. Which part of it is float16: half.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tome_export.errors import MissingExtraError, RequestError
from tome_export.precision.made import SOURCE, Made, in_child
from tome_export.precision.pictures import Pictures
from tome_export.preprocess import Preprocess

FILE = "inference.fp16.onnx"


def check() -> None:
    """Raises MissingExtraError if a package that it takes is not there."""
    for name in ("onnx", "onnxruntime"):  # the second judges it
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f'fp16 needs the {name} package: pip install "tome-export[onnx]"')


def make(folder: Path, kept: Sequence[int], recipe: Preprocess, calibration: Pictures | None = None) -> Made:
    """Write `inference.fp16.onnx` beside `inference.onnx` in `folder`. kept: blocks that stay in float32.
    Nothing is calibrated.

    Raises ConversionError for a weight that float16 cannot hold, RequestError if nothing can be float16.
    """
    said = in_child(
        "tome_export.precision.fp16_child",
        folder / SOURCE,
        folder / FILE,
        {"kept": list(kept)},
        "the model could not be written in float16",
    )
    if said["layers"] == 0:
        raise RequestError("no layer of this model can be in float16; leave out --precision fp16")
    return Made("fp16", (FILE,), said["opset"], said["layers"], "cast")


def judged(file: Path) -> bytes:
    """See `tome_export.precision.makers.Maker`."""
    import onnx

    from tome_export.precision.half import with_overflow

    return with_overflow(onnx.load(file)).SerializeToString()


def variants(full: Path, reduced: Path, kept: Collection[int]) -> Callable:
    """See `tome_export.precision.makers.Maker`."""
    import onnx

    from tome_export.precision.half import to_half, with_overflow

    original = onnx.load(full)

    def variant(blocks: Collection[int]):
        model = onnx.ModelProto()
        model.CopyFrom(original)
        to_half(model, {*kept, *blocks})
        return with_overflow(model)

    return variant
