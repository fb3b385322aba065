"""Is an evaluation limited by the model, and does its memory stay flat?

python -m benchmarks.eval_pipeline [--model vit_s16] [--r 16] [--images 2000] [--batch 32] [--workers N]

Makes JPEGs of about 500 x 375 pixels, random crops of three photographs (scikit-learn and matplotlib ship
them), in class folders, and exports the model with random weights. Then for each runtime: in turns, the model
alone on one batch in memory and an evaluation of four batches, whose ratio is reported; and one evaluation of
all pictures, during which the memory of the command and of its workers is sampled.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tome_export.benching.machine import machine
from tome_export.evaluation.pool import open_supply
from tome_export.preprocess import Preprocess
from tome_export.quiet import quiet

THREADS = 2
_EVAL = "import sys; sys.argv[0] = 'tome-export'; from tome_export.cli import main; main()"
_SAMPLE_SECONDS = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_s16")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--runtimes", default="onnx,paddle")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--short", action="store_true", help="the rounds only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, quiet() as session:
        from tome_export import export

        data, folder = Path(scratch) / "val", Path(scratch) / "bundle"
        total = make_pictures(data, arguments.images)
        bundle = export(arguments.model, folder, r=arguments.r)
        show = lambda text: print(text, file=session.stdout, flush=True)  # noqa: E731
        show(f"{arguments.model}, r = {arguments.r}, batch {arguments.batch}; {machine(THREADS)}")
        show(f"{arguments.images} JPEGs, {total / 1e6 / arguments.images * 1e3:.0f} kB each on average")
        for workers in (0, 1, 2):
            rate = without_model(data, bundle.manifest.preprocess, arguments.batch, workers)
            show(f"  reading and preparing alone, {workers} workers  {rate:6.1f} images/s")
        for runtime in arguments.runtimes.split(","):
            show(f"\n{runtime}, load of the machine {os.getloadavg()[0]:.1f}")
            if arguments.rounds:
                show_rounds(bundle, data, runtime, arguments, show)
            if not arguments.short:
                result, memory = run_eval(folder, data, runtime, arguments.batch, arguments.workers)
                show(
                    f"  all {result['evaluated']} images, {result['workers']} workers: "
                    f"{result['seconds']:.0f} s, {result['images_per_second']:.1f} images/s, "
                    f"waiting {100 * result['waiting']:.2f} %"
                )
                show_memory(memory, result["seconds"], show)


def make_pictures(folder: Path, count: int, classes: int = 1000) -> int:
    """`count` JPEGs in numbered class folders; returns their bytes."""
    import matplotlib
    from PIL import Image
    from sklearn.datasets import load_sample_image

    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photos = [
        Image.fromarray(load_sample_image("china.jpg")),
        Image.fromarray(load_sample_image("flower.jpg")),
        Image.open(hopper).convert("RGB"),
    ]
    rng = np.random.default_rng(0)
    total = 0
    for i in range(count):
        photo = photos[rng.integers(3)]
        width, height = (round(side * rng.uniform(0.6, 1)) for side in photo.size)
        left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
        part = photo.crop((left, top, left + width, top + height))
        long_side = round(500 * rng.uniform(0.9, 1.1))
        scale = long_side / max(part.size)
        part = part.resize([max(1, round(side * scale)) for side in part.size])
        path = folder / f"{i % classes:03d}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.save(path, quality=90)
        total += path.stat().st_size
    return total


def without_model(data: Path, recipe: Preprocess, batch: int, workers: int, count: int = 400) -> float:
    """Images per second that are ready for a model, with nobody using them, once the workers are at work."""
    paths = [str(path.relative_to(data)) for path in sorted(data.glob("*/*.jpg"))[:count]]
    with open_supply(data, paths, [recipe], batch=batch, workers=workers) as supply:
        for _ in range(4):  # more than the workers had got ready meanwhile
            supply.next()
        start, images = time.perf_counter(), 0
        while (got := supply.next()) is not None:
            images += len(got.good)
        return images / (time.perf_counter() - start)


def show_rounds(bundle, data: Path, runtime: str, arguments: argparse.Namespace, show) -> None:
    """In turns: the model on one batch in memory, and an evaluation of a few batches."""
    from tome_export import open_runtime
    from tome_export.evaluate import Contender, evaluate
    from tome_export.parity.samples import make_batch

    batch, count = arguments.batch, 4 * arguments.batch
    image = make_batch(tuple(f"photo:{seed}" for seed in range(batch)), bundle.manifest.preprocess)
    ratios, waiting = [], []
    with open_runtime(runtime, bundle, threads=THREADS) as opened:
        opened.run(image)
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            for _ in range(4):
                opened.run(image)
            alone = count / (time.perf_counter() - start)
            result = evaluate(
                Contender.open(bundle, runtime),
                data,
                threads=THREADS,
                batch=batch,
                workers=arguments.workers,
                limit=count,
            )
            ratios.append(result.images_per_second / alone)
            waiting.append(result.waiting)
            show(f"    model alone {alone:5.1f}, eval {result.images_per_second:5.1f} images/s")
    low, middle, high = statistics.quantiles(ratios, n=4)
    show(f"  eval runs at {middle:.2f} ({low:.2f} to {high:.2f}) of the model's own speed")
    show(f"  waiting {100 * statistics.median(waiting):.2f} %")


def run_eval(folder: Path, data: Path, runtime: str, batch: int, workers: int | None):
    """The command's JSON, and samples of (time, its memory, its workers' memory) in seconds and bytes."""
    options = ["--runtime", runtime, "--batch", str(batch), "--threads", str(THREADS)]
    options += ["--workers", str(workers)] if workers is not None else []
    process = subprocess.Popen(
        [sys.executable, "-c", _EVAL, "eval", folder, "--data", data, "--json", *options],
        stdout=subprocess.PIPE,
    )
    samples: list[tuple[float, int, int]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            try:
                workers = [resident(int(pid)) for pid in children.read_text().split()]
                samples.append((time.monotonic(), resident(process.pid), sum(workers)))
            except (OSError, ValueError):  # it is ending
                return

    sampler = threading.Thread(target=sample)
    sampler.start()
    stdout, _ = process.communicate()
    ended.set()
    sampler.join()
    assert process.returncode == 0, process.returncode
    return json.loads(stdout), samples


def resident(pid: int) -> int:
    """Bytes of memory a process holds. What several share (the ring of slots, libraries) is divided among
    them, so that sums over processes are true (Linux's Pss)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(pid)


def show_memory(samples: list[tuple[float, int, int]], seconds: float, show) -> None:
    running = [each for each in samples if each[2] > 0]  # until the workers are sent home
    end = running[-1][0]
    begin = end - seconds
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        _, own, workers = min(running, key=lambda each: abs(each[0] - begin - share * seconds))
        figures = f"{own / 1e6:6.0f} MB and {workers / 1e6:.0f} MB in the workers"
        show(f"  memory at {share:4.0%}           {figures}")


if __name__ == "__main__":
    main()
