"""Export a model at a schedule without the proof, and time such models against the unmerged one in turns."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tome_core.schedule import Schedule, tap_names
from tome_export.benching.turns import Ratio, ratio, take_turns
from tome_export.bundle import Bundle
from tome_export.manifest import Artifact, Manifest, TomeInfo
from tome_export.onnx import convert_to_onnx
from tome_export.parity.samples import make_batch
from tome_export.runtimes import RUNTIMES, Runtime, open_runtime
from tome_export.steps import Steps
from tome_export.tuning.costs import Costs, Point, Setting, fit_costs, probes
from tome_export.tuning.shapes import Frame

SECONDS = 4.0
"""Of turns for each schedule, after three rounds at least."""
_MOST_ROUNDS = 200
_GROUPS = 5  # of rounds, whose spread tells the error


@dataclass(frozen=True)
class Place:
    """Where models run. threads: on the CPU, None for all. batch: images at a time."""

    runtime: str = "onnx"
    precision: str = "fp32"
    device: str = "cpu"
    threads: int | None = None
    batch: int = 1


class Timer:
    """Times a model's schedules at one place. A context: leaving it removes what was exported."""

    def __init__(self, model, draft: Manifest, place: Place) -> None:
        self._model, self._draft, self._place = model, draft, place
        self._names = [f"photo:{seed}" for seed in range(place.batch)]

    def __enter__(self) -> Timer:
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tome-export-tune-"))
        )
        try:
            self._base = self._stack.enter_context(self._opened(frame_of(self._model).schedule(0), "r0"))
        except BaseException:
            self._stack.close()
            raise
        self._image = make_batch(self._names, self._draft.preprocess)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def notes(self) -> tuple[str, ...]:
        return self._base.notes

    def measure(self, setting: Setting, steps: Steps) -> Costs:
        """Time the probes, one after the other with r = 0."""
        points, base = [], []
        schedules = probes(setting.frame)
        for number, schedule in enumerate(schedules):
            steps.note(f"{number} of {len(schedules)} schedules timed")
            with self._opened(schedule, "probe") as runtime:
                taken = self._turns([runtime])
            points.append(point(schedule, taken[:, 1], taken[:, 0]))
            base.append(np.percentile(taken[:, 0], 10))
        return fit_costs(setting, 1000 * float(np.median(base)), points)

    def compare(self, schedules: Mapping[str, Schedule]) -> tuple[dict[str, Point], dict[str, Ratio]]:
        """All of them and r = 0 in the same turns, by name: time over that of r = 0, and speed-ups."""
        with ExitStack() as stack:
            taken = self._turns(
                [stack.enter_context(self._opened(each, name)) for name, each in schedules.items()]
            )
        base, own = taken[:, 0], {name: taken[:, i] for i, name in enumerate(schedules, 1)}
        return (
            {name: point(schedules[name], each, base) for name, each in own.items()},
            {name: ratio(each, base) for name, each in own.items()},
        )

    def _turns(self, opened: Sequence[Runtime]) -> np.ndarray:
        runs = [lambda runtime=runtime: runtime.run(self._image) for runtime in (self._base, *opened)]
        return take_turns(runs, _MOST_ROUNDS, SECONDS * len(opened))

    @contextmanager
    def _opened(self, schedule: Schedule, name: str) -> Iterator[Runtime]:
        folder = self._folder / name
        folder.mkdir()
        try:
            bundle = export_for_speed(self._model, self._draft, schedule, self._place.runtime, folder)
            place = self._place
            with open_runtime(
                place.runtime, bundle, precision=place.precision, device=place.device, threads=place.threads
            ) as runtime:
                yield runtime
        finally:
            shutil.rmtree(folder)


def frame_of(model) -> Frame:
    """Of a patched model."""
    state = model.tome
    return Frame(state.depth, state.tokens, state.protected)


def point(schedule: Schedule, own: np.ndarray, base: np.ndarray) -> Point:
    """own, base: seconds, float [rounds, repeats], of the same rounds.

    The ratio of undisturbed runs, the fastest tenth of each: where several threads wait for one another,
    medians of a small model's times differ by a quarter from one measurement to the next, and these by a
    hundredth.
    """
    groups = [_undisturbed(own[i::_GROUPS], base[i::_GROUPS]) for i in range(min(_GROUPS, len(own)))]
    doubt = float(np.std(groups, ddof=1)) / len(groups) ** 0.5 if len(groups) > 1 else 0.0
    return Point(schedule.r, _undisturbed(own, base), doubt)


def _undisturbed(own: np.ndarray, base: np.ndarray) -> float:
    return float(np.percentile(own, 10) / np.percentile(base, 10))


def export_for_speed(model, draft: Manifest, schedule: Schedule, runtime: str, folder: Path) -> Bundle:
    """The patched model with this schedule, as far as the runtime needs it; its r is put back. Not proved to
    be right."""
    from tome_export.trace import save_inference_model

    before, model.r = model.r, list(schedule.r)
    try:
        weights = folder / "weights" if RUNTIMES[runtime].reads == "onnx" else None
        save_inference_model(model, ("logits",), draft.model.image_size, folder, weights)
    finally:
        model.r = before
    if weights is None:
        files, opset, form = ["inference.json", "inference.pdiparams"], None, "paddle"
    else:
        opset, files = convert_to_onnx(folder, weights, ("logits",), tap_names(schedule.r))
        form = "onnx"
        shutil.rmtree(weights)
        (folder / "inference.pdiparams").unlink()
    tome = TomeInfo(schedule.r, draft.tome.prop_attn, schedule.tokens, draft.tome.macs)
    artifact = Artifact(form, "fp32", dict.fromkeys(files, ""), opset)
    return Bundle(folder, replace(draft, tome=tome, artifacts=(artifact,)))
