"""The ONNX model in int8, for ONNX Runtime's CPU provider. Quantised in a child process, which needs several
times the model's size in memory and says much."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.errors import ConversionError, MissingExtraError, RequestError
from tome_export.precision.pictures import Pictures, prepare
from tome_export.preprocess import Preprocess

FILE = "inference.int8.onnx"
_SECONDS = 7200
_NEEDS = ("onnx", "onnxruntime", "ml_dtypes")


@dataclass(frozen=True)
class Quantised:
    """files: in the bundle. opset: of the graph. layers: in int8. calibrated: pictures used, 0 if dynamic."""

    files: tuple[str, ...]
    opset: int
    layers: int
    calibrated: int

    @property
    def method(self) -> str:
        return "static" if self.calibrated else "dynamic"


def check_int8() -> None:
    """Raises MissingExtraError if a package that quantises is not there."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        extra = "onnx" if "onnxruntime" in missing else "int8"
        raise MissingExtraError(
            f'int8 needs the {" and ".join(missing)} package: pip install "tome-export[{extra}]"'
        )


def quantise(
    folder: Path, kept: Sequence[int], recipe: Preprocess, calibration: Pictures | None = None
) -> Quantised:
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
        said = _run(folder / "inference.onnx", folder / FILE, json.dumps(arguments))
    finally:
        for path in scratch.glob("*.npy"):
            path.unlink()
        if scratch.is_dir():
            scratch.rmdir()
    if said["layers"] == 0:
        raise RequestError("no layer of this model can be quantised; leave out --precision int8")
    return Quantised((FILE,), said["opset"], said["layers"], count)


def _run(source: Path, target: Path, arguments: str) -> dict:
    child = subprocess.run(
        [sys.executable, "-m", "tome_export.precision.int8_child", str(source), str(target)],
        input=arguments,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    print(child.stdout, child.stderr, sep="\n")  # for --debug
    answers = [line for line in child.stdout.splitlines() if line.startswith("{")]
    if child.returncode != 0 or not answers:
        lines = [line.strip() for line in child.stderr.splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else f"it ended with status {child.returncode}"
        raise ConversionError(f"ONNX Runtime could not quantise the model ({reason})")
    return json.loads(answers[-1])
