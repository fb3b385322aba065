"""The child process of `memory.py`: opens one model, runs it, writes down what was resident at most."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tome_export.benching.contenders import Contender, Model, model_of, onnx_file
from tome_export.bundle import Bundle
from tome_export.runtimes import probe
from tome_export.steps import peak_memory

_RUNS = 3


def resident() -> int | None:
    """Bytes this process held at most; None where the system does not say."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return peak_memory()


def main(task: dict) -> None:
    bundle = Bundle.open(task["bundle"])
    model = model_of(bundle) if task["file"] is None else onnx_file(Path(task["file"]), bundle)
    probe(task["runtime"])  # imports the engine
    empty, peaks = resident(), {}
    with _contender(model, task).open(task["device"], task["threads"]) as runtime:
        for batch in task["batches"]:
            image = np.zeros((batch, *bundle.manifest.inputs[0].shape[1:]), np.float32)
            for _ in range(_RUNS):
                runtime.run(image)
            peaks[batch] = resident()
    found = None if empty is None else {"empty": empty, "peaks": peaks}
    Path(task["answer"]).write_text(json.dumps(found), encoding="utf-8")


def _contender(model: Model, task: dict) -> Contender:
    return Contender(model, task["runtime"], task["precision"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
