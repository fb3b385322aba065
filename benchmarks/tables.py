"""Make the tables of benchmarks/README.md again: speed of every model on every runtime, and of the export.

    python -m benchmarks.tables [--only vit_b16:onnx,export] [--json tables.json] [--keep DIR]

A measurement is MODEL:RUNTIME:PRECISION, r against r = 0 in turns (`tome_export.bench`), or export:MODEL.
`--list` names all; `--only` takes their beginnings. Each is put into the JSON file as soon as it is known,
in place of an older one of its name, and the Markdown that is printed is made of all that the file holds.
`--keep DIR` keeps the bundles there and takes those that lie there as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.tables_text import as_markdown
from tome_core.errors import TomeError
from tome_export.bench import bench
from tome_export.benching.machine import Machine
from tome_export.manifest import Versions, utc_now
from tome_export.quiet import quiet
from tome_export.runtimes import probe

THREADS = 2
_EXPORT = "import sys; sys.argv[0] = 'tome-export'; from tome_export.cli import main; main()"
_ONNX_FP32 = (("onnx", "fp32"),)
_FP32 = (*_ONNX_FP32, ("paddle", "fp32"), ("openvino", "fp32"))


@dataclass(frozen=True)
class Case:
    """A model at the r that halves its multiply-adds, or nearly, and what it runs on."""

    model: str
    r: int
    runs: tuple[tuple[str, str], ...]
    image_size: int = 224

    @property
    def name(self) -> str:
        return self.model if self.image_size == 224 else f"{self.model}_{self.image_size}"

    def options(self, r: int) -> list[str]:
        """Of `tome-export`."""
        options = ["--model", self.model, "--r", str(r), "--image-size", str(self.image_size)]
        made = {precision for runtime, precision in self.runs if runtime == "onnx"}
        return [*options, "--precision", ",".join(["fp32", *sorted(made - {"fp32"})])]


CASES = (
    Case(
        "vit_b16",
        16,
        (*_FP32, ("onnx", "int8"), ("paddle", "bf16"), ("openvino", "bf16")),
    ),
    Case("vit_s16", 13, _FP32),
    Case("vit_l16", 8, _FP32),
    Case("vit_b16", 45, _FP32, image_size=384),
)
EXPORTS = ("vit_b16",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names, or how they begin: vit_b16:onnx,export")
    parser.add_argument("--list", action="store_true", help="the names, and nothing else")
    parser.add_argument("--json", type=Path, default=Path("tables.json"), help="default: tables.json")
    parser.add_argument("--keep", type=Path, help="folder for the bundles; they are deleted without it")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, help="for a batch size at most, after three rounds")
    parser.add_argument("--no-memory", action="store_true")
    arguments = parser.parse_args()
    chosen = [name for name in names() if begins(name, arguments.only)]
    if arguments.list:
        print("\n".join(chosen))
        return
    if not chosen:
        sys.exit(f"nothing is called {arguments.only}; --list names them")
    found = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {}
    with tempfile.TemporaryDirectory() as scratch, quiet() as session:
        for name in chosen:
            print(f"{name} ...", file=session.stderr, flush=True)
            before = os.getloadavg()
            try:
                measured = measure(name, arguments, arguments.keep or Path(scratch))
            except TomeError as error:  # a runtime or precision that is not here
                print(f"{name}: left out: {error}", file=session.stderr, flush=True)
                continue
            found[name] = {**measured, **surroundings(), "load": {"before": before, "after": os.getloadavg()}}
            arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(as_markdown({name: found[name] for name in names() if name in found}), file=session.stdout)


def names() -> list[str]:
    runs = [f"{case.name}:{runtime}:{precision}" for case in CASES for runtime, precision in case.runs]
    return runs + [f"export:{model}" for model in EXPORTS]


def begins(name: str, only: str) -> bool:
    """Whether a wish is the name, or its first parts."""
    return not only or any(f"{name}:".startswith(f"{wish}:") for wish in only.split(","))


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> dict:
    model, _, rest = name.partition(":")
    if model == "export":
        return measure_export(rest)
    case = next(each for each in CASES if each.name == model)
    runtime, precision = rest.split(":")
    bundles = {r: folder / f"{case.name}-r{r}" for r in (0, case.r)}
    for r, bundle in bundles.items():
        if not bundle.exists():
            export(case.options(r), bundle)
    result = bench(
        bundles[case.r],
        runtimes=[runtime],
        precisions=[precision],
        batches=[int(size) for size in arguments.batch.split(",")],
        against=str(bundles[0]),
        threads=THREADS,
        rounds=arguments.rounds if arguments.seconds is None else None,
        seconds=arguments.seconds,
        memory=not arguments.no_memory,
    )
    return {"model": case.model, "image_size": case.image_size, "r": case.r, **json.loads(result.to_json())}


def measure_export(model: str) -> dict:
    """Both formats, with parity, in a process of its own, as the user starts it; weights are random."""
    with tempfile.TemporaryDirectory() as scratch:
        return {"model": model, **export(["--model", model], Path(scratch) / "bundle")}


def export(options: list[str], out: Path) -> dict:
    """seconds: from start to end of the process."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _EXPORT, *options, "--out", str(out)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\ntome-export {' '.join(options)} failed")
    return {"seconds": time.perf_counter() - start}


def surroundings() -> dict:
    """What it ran on, and beside which versions."""
    versions = asdict(Versions.installed())
    openvino = probe("openvino")
    return {
        "finished": utc_now(),
        "where": str(Machine.here()),
        "threads": THREADS,
        "versions": {**versions, "openvino": openvino.version if openvino.usable else None},
    }


if __name__ == "__main__":
    main()
