"""Measure the speed of a bundle on the runtimes there are, against another model. The parts: `benching/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from tome_export.benching import memory as memory_of
from tome_export.benching.contenders import Contender, Model, line_up, model_of, onnx_file
from tome_export.benching.machine import Machine
from tome_export.benching.merging import merging_share
from tome_export.benching.result import Benchmark, Entry, Timed, figures
from tome_export.benching.turns import REPEATS, take_turns
from tome_export.bundle import Bundle
from tome_export.errors import RequestError
from tome_export.manifest import utc_now
from tome_export.parity.samples import make_batch
from tome_export.runtimes import Runtime
from tome_export.runtimes.base import check_threads, parse_device
from tome_export.steps import Steps

UNMERGED = "r0"
ROUNDS, MOST_ROUNDS = 15, 100_000

MakeTwin = Callable[[Bundle, object, Steps], Bundle]
"""Export a bundle's model again with another r: `tome_export.benching.twin.twin`."""


def bench(
    folder: Path,
    *,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] = ("fp32",),
    batches: Sequence[int] = (1, 8),
    against: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    memory: bool = True,
    steps: Steps | None = None,
    make_twin: MakeTwin | None = None,
) -> Benchmark:
    """All contenders in turns in this process, one batch size after the other.

    runtimes: None for all that are installed and can read the bundle. against: "r0" for the same weights
    unmerged, which `make_twin` exports; a bundle's folder; an ONNX file; None compares the runtimes with the
    first of them. rounds: for each batch size, 15 unless `seconds`, for each batch size, limits them.
    memory: measure it too, in a child process for each contender.

    Raises RequestError, BundleError, MissingExtraError, BenchError, and what an export raises.
    """
    steps = steps or Steps()
    check(batches, device, threads, rounds, seconds)
    model = model_of(Bundle.open(folder))
    contenders, notes = line_up(model, None, runtimes, precisions, device)  # refuses before a twin takes long
    if against is not None:
        baseline = _baseline(against, model, steps, make_twin)
        contenders, notes = line_up(model, baseline, runtimes, precisions, device)
    most = rounds or (ROUNDS if seconds is None else MOST_ROUNDS)
    return measure(model, contenders, notes, batches, device, threads, most, seconds, memory, steps)


def measure(
    model: Model,
    contenders: Sequence[Contender],
    notes: Sequence[str],
    batches: Sequence[int],
    device: str,
    threads: int | None,
    rounds: int,
    seconds: float | None,
    memory: bool,
    steps: Steps,
) -> Benchmark:
    """As `bench`, for contenders that are lined up. model: whose images they all take."""
    held: dict[int, memory_of.Memory | None] = {}
    if memory:  # before anything is opened here: the machine's memory is the child's
        with steps("memory"):
            for index, each in enumerate(contenders):
                held[index] = memory_of.measure(each, model.bundle, batches, device, threads)
    timed: list[Timed] = []
    done: dict[str, int] = {}
    with ExitStack() as stack:
        with steps("open"):
            opened = [stack.enter_context(each.open(device, threads)) for each in contenders]
        entries = tuple(
            _entry(each, runtime, held.get(index))
            for index, (each, runtime) in enumerate(zip(contenders, opened, strict=True))
        )
        for batch in dict.fromkeys(batches):
            image = make_batch([f"photo:{seed}" for seed in range(batch)], model.bundle.manifest.preprocess)
            with steps(f"batch {batch}"):
                taken = take_turns([_runner(each, image) for each in opened], rounds, seconds)
            done[str(batch)] = len(taken)
            peaks = {index: found.peaks[batch] for index, found in held.items() if found is not None}
            timed += figures(taken, batch, entries, peaks)
    if device == "cpu":
        with steps("merging"):
            timed = [_with_share(each, contenders[each.entry], model, threads) for each in timed]
    return Benchmark(
        utc_now(), Machine.here(), device, threads, done, REPEATS, entries, tuple(timed), tuple(notes)
    )


def check(batches, device: str, threads: int | None, rounds: int | None, seconds: float | None) -> None:
    parse_device(device)
    check_threads(threads)
    if not batches or min(batches) < 1:
        raise RequestError("a batch holds at least one image")
    if rounds is not None and rounds < 1:
        raise RequestError(f"it takes at least one round, not {rounds}")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise RequestError(f"the time for a batch size should be above 0 seconds, not {seconds:g}")


def _baseline(against: str, model: Model, steps: Steps, make_twin: MakeTwin | None) -> Model:
    path = Path(against)
    if against == UNMERGED:
        if not any(model.bundle.manifest.tome.r):
            raise RequestError("this bundle merges nothing: it is r0 itself; compare another with it")
        if make_twin is None:
            raise RequestError("there is no Python model here to export again; compare with another bundle")
        return Model(UNMERGED, make_twin(model.bundle, 0, steps))
    if path.is_dir():
        other = Bundle.open(path)
        if other.manifest.inputs[0].shape != model.bundle.manifest.inputs[0].shape:
            raise RequestError(
                f"{path} takes images of {other.manifest.model.image_size} pixels, {model.name} of "
                f"{model.bundle.manifest.model.image_size}"
            )
        found = model_of(other)
        return replace(found, name=f"{found.name} (2)") if found.name == model.name else found
    return onnx_file(path, model.bundle)


def _runner(runtime: Runtime, image: np.ndarray) -> Callable[[], object]:
    return lambda: runtime.run(image)


def _entry(contender: Contender, opened: Runtime, memory: memory_of.Memory | None) -> Entry:
    model = contender.model
    where = model.bundle.path / model.name if model.foreign else model.bundle.path
    return Entry(
        contender.name,
        model.name,
        str(where),
        contender.runtime,
        opened.version,
        contender.precision,
        opened.notes,
        None if model.foreign else model.bundle.manifest.tome.r,
        model.macs,
        contender.against,
        None if memory is None else memory.empty,
    )


def _with_share(timed: Timed, contender: Contender, model: Model, threads: int | None) -> Timed:
    """With the share of merging, where it can be told."""
    bundle = contender.model.bundle
    if contender.runtime != "onnx" or contender.model.foreign or not any(bundle.manifest.tome.r):
        return timed
    names = [f"photo:{seed}" for seed in range(timed.batch)]
    image = make_batch(names, model.bundle.manifest.preprocess)
    return replace(timed, merging=merging_share(bundle, image, threads, contender.precision))
