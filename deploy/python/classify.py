"""Classify image files with an exported bundle, on ONNX Runtime or Paddle Inference.

    python classify.py BUNDLE IMAGE... [--runtime onnx|paddle]

Reads the bundle's manifest.json and one model in it. Needs numpy, Pillow and the runtime.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time

import numpy as np
from bundle import EngineError, RequestError, open_bundle
from preprocess import preprocess

_PACKAGES = {"onnx": "onnxruntime", "paddle": "paddlepaddle"}


def best(logits: np.ndarray, labels: list[str], count: int) -> list[dict]:
    """One image's logits `[classes]` -> its best classes, best first; equal ones in order of their index."""
    if not np.isfinite(logits).all():
        raise EngineError("the model answered with something that is not a number")
    exponential = np.exp(logits.astype(np.float64) - logits.max())
    probability = exponential / exponential.sum()
    order = np.argsort(-logits, kind="stable")[:count]
    return [{"index": int(i), "label": labels[i], "probability": float(probability[i])} for i in order]


def classify(arguments: argparse.Namespace) -> dict:
    """What `--json` prints. Raises RequestError, EngineError."""
    bundle = open_bundle(arguments.bundle, arguments.runtime, arguments.precision)
    engine = _engine(arguments.runtime).Engine(bundle, arguments.threads, arguments.gpu)
    report = {
        "runtime": arguments.runtime,
        "version": engine.version,
        "precision": arguments.precision,
        "device": "gpu" if arguments.gpu else "cpu",
        "threads": arguments.threads,
        "images": [],
        "timing": None,
    }
    seen = []
    for first in range(0, len(arguments.images), arguments.batch):
        paths = arguments.images[first : first + arguments.batch]
        start = time.perf_counter()
        image = np.stack([preprocess(path, bundle.recipe) for path in paths])
        prepare = (time.perf_counter() - start) * 1000 / len(paths)
        logits = engine.run(image)
        if logits.shape != (len(paths), len(bundle.labels)):
            raise EngineError("the model does not answer as its manifest says; export the bundle again")
        for path, row in zip(paths, logits, strict=True):
            shown = os.fsencode(path).decode("utf-8", "replace")
            report["images"].append({"path": shown, "top": best(row, bundle.labels, arguments.top)})
        if first == 0 and arguments.repeat:
            report["timing"] = measure(engine, image, arguments.repeat) | {"prepare_ms": prepare}
        if arguments.dump_input:
            seen.append(image)
    if arguments.dump_input:
        _save(arguments.dump_input, np.concatenate(seen))
    return report


def measure(engine, image: np.ndarray, runs: int) -> dict:
    """Milliseconds to run the model, and nothing else, on this batch."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        engine.run(image)
        times.append((time.perf_counter() - start) * 1000)
    median = statistics.median(times)
    return {
        "batch": len(image),
        "runs": runs,
        "median_ms": median,
        "fastest_ms": min(times),
        "slowest_ms": max(times),
        "images_per_s": len(image) * 1000 / median,
    }


def as_text(report: dict) -> str:
    lines = []
    for image in report["images"]:
        lines.append(f"{image['path']} ({report['runtime']} {report['version']})")
        widest = max(len(guess["label"]) for guess in image["top"])
        lines += [f"  {guess['label']:{widest}}  {guess['probability']:.4f}" for guess in image["top"]]
    if timing := report["timing"]:
        how = f"{report['precision']}, {report['device']}, {report['threads']} threads"
        spread = f"{timing['fastest_ms']:.1f} to {timing['slowest_ms']:.1f}"
        lines.append(
            f"batch {timing['batch']}, {how}: median {timing['median_ms']:.1f} ms of {timing['runs']} runs "
            f"({spread}), {timing['images_per_s']:.1f} images/s; "
            f"reading an image {timing['prepare_ms']:.1f} ms"
        )
    return "\n".join(lines)


def _engine(runtime: str):
    package = _PACKAGES[runtime]
    try:
        return importlib.import_module(f"{runtime}_engine")
    except ImportError as error:
        raise RequestError(f"{package} cannot be imported ({error}): pip install {package}") from None


def _save(path: str, images: np.ndarray) -> None:
    try:
        with open(path, "wb") as file:
            np.save(file, images)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written ({error.strerror})") from None


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f'takes a whole number from 1 to 1000000, not "{text}"')
    return int(text)


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise RequestError(f"{message}; --help says more")


def parse(words: list[str]) -> argparse.Namespace:
    parser = _Parser(description="Classify image files with an exported bundle.", allow_abbrev=False)
    parser.add_argument("bundle")
    parser.add_argument("images", nargs="+", metavar="image")
    number = {"type": _at_least_one, "metavar": "N"}
    parser.add_argument("--runtime", choices=_PACKAGES, default="onnx")
    parser.add_argument("--batch", default=1, help="images per run of the model (1)", **number)
    parser.add_argument("--threads", default=_usable_cpus(), help="CPU threads (all there are)", **number)
    parser.add_argument(
        "--repeat", help="run the first batch N times more and say how long it takes", **number
    )
    parser.add_argument("--top", default=5, help="classes to show for each image (5)", **number)
    parser.add_argument("--precision", default="fp32", help="of the bundle's model to run (fp32)")
    parser.add_argument("--gpu", action="store_true", help="run on the first GPU")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--dump-input", metavar="FILE", help="write the model's input as .npy")
    return parser.parse_args(words)


def main() -> int:
    try:
        arguments = parse(sys.argv[1:])
        report = classify(arguments)
    except (RequestError, EngineError) as error:
        print(f"error: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    print(json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else as_text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
