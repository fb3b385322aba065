"""The memory a model needs on a runtime, in a process that does nothing else.

What is told is the most that was resident at once, file pages among it, so that a runtime that maps its
weights instead of reading them gets no present. Linux's VmHWM belongs to the program; `ru_maxrss` would begin
with what the parent held when it started the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tome_export.benching.contenders import Contender
from tome_export.bundle import Bundle
from tome_export.errors import BenchError


@dataclass(frozen=True)
class Memory:
    """Bytes resident at most. empty: with the engine imported, before a model was opened. peaks: after runs
    of each batch size, smallest first, so that each includes those before."""

    empty: int
    peaks: dict[int, int]


def measure(
    contender: Contender, of: Bundle, batches: Sequence[int], device: str, threads: int | None
) -> Memory | None:
    """In a child process. of: the bundle whose speed is measured. None where the system does not say.

    Raises BenchError.
    """
    bundle = contender.model.bundle
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        task = {
            "bundle": str(of.path),
            "file": str(bundle.file(bundle.artifact("onnx"), ".onnx")) if contender.model.foreign else None,
            "runtime": contender.runtime,
            "precision": contender.precision,
            "batches": sorted(set(batches)),
            "device": device,
            "threads": threads,
            "answer": str(answer),
        }
        done = subprocess.run(
            [sys.executable, "-m", "tome_export.benching.memory_child", json.dumps(task)],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode != 0 or not answer.exists():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise BenchError(
                f"measuring the memory of {contender.name} failed, status {done.returncode} ({last[:200]}); "
                "--no-memory leaves it out"
            )
        found = json.loads(answer.read_text(encoding="utf-8"))
    if found is None:
        return None
    return Memory(found["empty"], {int(batch): peak for batch, peak in found["peaks"].items()})
