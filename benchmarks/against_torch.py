"""Is our ONNX file faster than the one that PyTorch makes of the same weights and the same algorithm?

    python -m benchmarks.against_torch [--model vit_b16] [--r 16] [--batch 1,8] [--rounds 12]

`timm_tome.py` writes the opponents, with both exporters of `torch.onnx`, and random weights; `tome-export`
exports these weights. All files must give the same logits before they take turns on one ONNX Runtime with the
same options. Needs the extra `torch`, here or in the environment of `--torch-python`. `--keep DIR` keeps the
opponents there, and a second run begins with them; ours are always exported anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tome_export.benching.machine import machine
from tome_export.benching.turns import ratio, take_turns
from tome_export.console import table
from tome_export.quiet import quiet

THREADS = 2
TIMM = {
    "vit_ti16": "vit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "vit_b16": "vit_base_patch16_224",
    "vit_l16": "vit_large_patch16_224",
}
OURS, THEIRS = "tome-export", ("dynamo", "legacy")
TOLERANCE = 1e-4
"""Of the logits' range."""

Run = Callable[[np.ndarray], np.ndarray]
Key = tuple[str, int]
"""Who exported it, and r."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_b16", choices=TIMM)
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--torch-python", default=sys.executable, help="of the environment with torch")
    parser.add_argument("--keep", type=Path, help="folder for the models; they are deleted without it")
    parser.add_argument("--json", type=Path, help="file for every figure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, quiet() as session:
        show = lambda text="": print(text, file=session.stdout, flush=True)  # noqa: E731
        made, files = prepare(arguments, arguments.keep or Path(scratch))
        opened = {key: open_file(path) for key, path in files.items()}
        found = {"machine": machine(THREADS), "load": os.getloadavg(), "made": made, "batches": {}}
        show(f"{arguments.model}; {found['machine']}, load {found['load'][0]:.1f}")
        show(", ".join(f"{name} {version}" for name, version in made["versions"].items()))
        for batch in map(int, arguments.batch.split(",")):
            image = images(batch)
            differ, merging = agree(opened, image, arguments.r)
            runs = [lambda run=run, image=image: run(image) for run in opened.values()]
            rows = figures(list(opened), take_turns(runs, arguments.rounds))
            show(f"\nbatch {batch}\n{as_text(rows)}")
            show(f"  of the logits' range, merging changes {merging:.1e}, another file at most {differ:.1e}")
            found["batches"][batch] = {"differ": differ, "merging": merging, "files": rows}
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=2, default=asdict) + "\n", encoding="utf-8")


def prepare(arguments: argparse.Namespace, folder: Path) -> tuple[dict, dict[Key, Path]]:
    """What made the opponents, and all files."""
    from tome_export import export

    theirs, made = folder / "torch", folder / "torch" / "made.json"
    wanted = {"model": TIMM[arguments.model], "r": arguments.r}
    if not made.exists() or not wanted.items() <= json.loads(made.read_text(encoding="utf-8")).items():
        script = Path(__file__).with_name("timm_tome.py")
        done = subprocess.run(
            [arguments.torch_python, script, theirs, "--model", wanted["model"], "--r", str(wanted["r"])],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            sys.exit(f'{last}; pip install ".[torch]", or name the environment that has it by --torch-python')
    files: dict[Key, Path] = {}
    for r in (0, arguments.r):
        weights = theirs / "weights.safetensors"
        bundle = export(arguments.model, folder / "ours" / f"r{r}", r=r, weights=weights, force=True)
        files[OURS, r] = bundle.file(bundle.artifact("onnx"), ".onnx")
        files |= {(exporter, r): theirs / f"r{r}-{exporter}.onnx" for exporter in THEIRS}
    return json.loads(made.read_text(encoding="utf-8")), files


def open_file(path: Path) -> Run:
    from tome_export.runtimes.onnx_runtime import start_session

    session = start_session(path, path.parent, threads=THREADS)
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def images(batch: int) -> np.ndarray:
    from tome_export.parity.samples import make_batch
    from tome_export.preprocess import preset

    return make_batch([f"photo:{seed}" for seed in range(batch)], preset("vit", 224))


def agree(opened: dict[Key, Run], image: np.ndarray, r: int) -> tuple[float, float]:
    """How far an opponent's logits are from ours at most, and those of r from those of 0; both as shares of
    their range. Ends if an opponent is too far."""
    logits = {key: run(image) for key, run in opened.items()}
    worst = 0.0
    for exporter, merged in logits:
        error = distance(logits[exporter, merged], logits[OURS, merged])
        if not error <= TOLERANCE:
            sys.exit(f"{exporter}, r = {merged}: computes something else; {error:.1e} of the range away")
        worst = max(worst, error)
    return worst, distance(logits[OURS, r], logits[OURS, 0])


def distance(logits: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(logits - expected).max() / np.ptp(expected))


def figures(keys: list[Key], seconds: np.ndarray) -> list[dict]:
    """Of each file: milliseconds, how many times faster ours of the same r is, and what its r = 0 gains by
    merging. seconds: float [rounds, files, repeats]."""
    found = []
    for exporter, r in keys:
        own, ours, unmerged = (
            seconds[:, keys.index(key)] for key in ((exporter, r), (OURS, r), (exporter, 0))
        )
        found.append(
            {
                "exporter": exporter,
                "r": r,
                "ms": float(np.median(own)) * 1e3,
                "ours_is_faster": None if exporter == OURS else ratio(ours, own),
                "speed_up": ratio(own, unmerged) if r else None,
            }
        )
    return found


def as_text(rows: list[dict]) -> str:
    lines = [("", "", "median", "tome-export is faster", "over its r = 0")]
    for each in rows:
        ratios = (each[name] or "" for name in ("ours_is_faster", "speed_up"))
        lines.append((each["exporter"], f"r = {each['r']}", f"{each['ms']:.1f} ms", *ratios))
    return table(lines, right=[2])


if __name__ == "__main__":
    main()
