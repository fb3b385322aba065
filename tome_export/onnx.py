"""Paddle inference model -> ONNX, in a child process: on failure the converter aborts its process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tome_export.errors import ConversionError, RequestError

DEFAULT_OPSET = 17
OPSETS = range(13, 21)
_SECONDS = 1800


def check_opset(opset: int) -> int:
    """`opset`, if the converter can write it. Raises RequestError."""
    if opset not in OPSETS:
        raise RequestError(f"opset {opset} is not one of {OPSETS.start} to {OPSETS.stop - 1}")
    return opset


def convert_to_onnx(
    folder: Path,
    weights_folder: Path,
    outputs: Sequence[str],
    taps: Sequence[str],
    opset: int = DEFAULT_OPSET,
) -> tuple[int, list[str]]:
    """Write `inference.onnx` beside the Paddle model in `folder`; returns the opset it has and its files.

    taps: the further outputs of `inference.debug.json`, in order, which name tensors inside the ONNX graph.
    weights_folder: as `save_inference_model` wrote it. Weights of 2 GB and more, which protobuf cannot hold,
    go to `inference.onnx.data`. Raises ConversionError with the converter's own words.
    """
    target = folder / "inference.onnx"
    arguments = [str(folder / "inference.debug.json"), str(weights_folder), str(target), str(opset)]
    arguments += [",".join(outputs), ",".join(taps)]
    child = subprocess.run(
        [sys.executable, "-m", "tome_export.onnx_child", *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    print(child.stdout, child.stderr, sep="\n")  # for --debug
    written = [line for line in child.stdout.splitlines() if line.startswith("opset ")]
    if child.returncode != 0 or not written or not target.is_file():
        raise ConversionError(f"paddle2onnx could not convert the model ({_reason(child)})")
    return int(written[-1].split()[1]), sorted(path.name for path in folder.glob("inference.onnx*"))


def _reason(child: subprocess.CompletedProcess) -> str:
    lines = [line.strip() for line in (child.stdout + "\n" + child.stderr).splitlines()]
    errors = [line for line in lines if "[ERROR]" in line or "Error:" in line]
    if errors:
        return errors[0][:300]
    return f"it ended with status {child.returncode}; run with --debug for its output"
