"""What a maker of an artifact in reduced precision hands back, and the child process that it works in: to
change all weights takes several times their size in memory, and the libraries that do it say much."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tome_export.errors import ConversionError

SOURCE = "inference.onnx"
"""The float32 model in a bundle, of which the others are made."""
_SECONDS = 7200


@dataclass(frozen=True)
class Made:
    """An ONNX artifact. files: in the bundle. opset: of the graph. layers: linear layers in this precision.
    method: see `PrecisionResult`. calibrated: pictures used."""

    precision: str
    files: tuple[str, ...]
    opset: int
    layers: int
    method: str
    calibrated: int = 0


def in_child(module: str, source: Path, target: Path, arguments: dict, doing: str) -> dict:
    """Run `python -m MODULE SOURCE TARGET`, arguments as JSON on its standard input; the answer is the last
    line of its output that is a JSON object. Raises ConversionError: `doing` failed, or what the answer gives
    as its `error`."""
    child = subprocess.run(
        [sys.executable, "-m", module, str(source), str(target)],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    print(child.stdout, child.stderr, sep="\n")  # for --debug
    answers = [line for line in child.stdout.splitlines() if line.startswith("{")]
    if child.returncode != 0 or not answers:
        lines = [line.strip() for line in child.stderr.splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else f"it ended with status {child.returncode}"
        raise ConversionError(f"{doing} ({reason})")
    answer = json.loads(answers[-1])
    if "error" in answer:
        raise ConversionError(answer["error"])
    return answer
