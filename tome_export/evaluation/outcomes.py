"""What the models answered, picture by picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tome_export.evaluation.dataset import Dataset
from tome_export.evaluation.supply import Supply
from tome_export.runtimes import Runtime

TOP = 5


@dataclass
class Answers:
    """One model's best classes: `classes` int32 `[n, k]` and their softmax `probabilities` float32 `[n, k]`,
    k = 5 or the number of classes if that is less, best first; -1 and NaN where there is no answer.
    `seconds`: spent in the model."""

    classes: np.ndarray
    probabilities: np.ndarray
    seconds: float = 0.0


@dataclass
class Outcomes:
    """Answers of every model to the pictures of a dataset, in its order.

    `labels`: int32 `[n]`. `read`: bool `[n]`, which pictures were read and answered. `errors`: position and
    reason of those that could not be. `finished`: how many positions, from the first on, are decided; fewer
    than n after an interruption. `seconds`: all of it; `waited`: of these, those without a picture to work
    on.
    """

    labels: np.ndarray
    read: np.ndarray
    answers: tuple[Answers, ...]
    errors: dict[int, str] = field(default_factory=dict)
    finished: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def correct(self, model: int, top: int = 1) -> np.ndarray:
        """bool `[n]`: read, and the label is among the model's `top` best classes."""
        return (self.answers[model].classes[:, :top] == self.labels[:, None]).any(1) & self.read


class Watch:
    """Follows a collection; does nothing by itself. `stopped` is asked often and from the same thread."""

    def started(self, dataset: Dataset, outcomes: Outcomes) -> None:
        """The models are open; the first batch is next."""

    def advanced(self, outcomes: Outcomes, start: int, stop: int) -> None:
        """The pictures at positions `start` to `stop` - 1 are decided."""

    def stopped(self) -> bool:
        """Whether to end early, with what there is."""
        return False


@dataclass(frozen=True)
class Model:
    """An opened runtime, and which of a supply's recipes it takes."""

    runtime: Runtime
    classes: int
    recipe: int = 0


def collect(
    models: Sequence[Model], dataset: Dataset, supply: Supply, watch: Watch | None = None
) -> Outcomes:
    """Run every model on every picture that `supply` delivers (opened on the same samples).

    Raises WorkerError, and what the runtimes raise. When `watch` stops it, the outcomes end early.
    """
    watch = watch or Watch()
    count = len(dataset.samples)
    outcomes = Outcomes(
        np.array([sample.label for sample in dataset.samples], np.int32),
        np.zeros(count, bool),
        tuple(_no_answers(count, min(TOP, model.classes)) for model in models),
    )
    watch.started(dataset, outcomes)
    waited_before, begin = supply.waited, time.perf_counter()
    while not watch.stopped() and (batch := supply.next()) is not None:
        start, rows = outcomes.finished, list(batch.good)
        if rows:
            for model, answers in zip(models, outcomes.answers, strict=True):
                before = time.perf_counter()
                logits = model.runtime.run(batch.images[model.recipe])["logits"]
                answers.seconds += time.perf_counter() - before
                answers.classes[rows], answers.probabilities[rows] = best(logits)
        outcomes.read[rows] = True
        outcomes.errors.update(batch.bad)
        outcomes.finished += len(batch.good) + len(batch.bad)
        outcomes.seconds = time.perf_counter() - begin
        outcomes.waited = supply.waited - waited_before
        watch.advanced(outcomes, start, outcomes.finished)
    return outcomes


def best(logits: np.ndarray, top: int = TOP) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[n, classes]` -> the `top` best classes int32 and probabilities float32, both `[n, k]`; of
    equal logits the lower class first. A row that holds NaN or infinity has no answer: -1 and NaN."""
    logits = logits.astype(np.float64)
    sound = np.isfinite(logits).all(1, keepdims=True)
    logits = np.where(sound, logits, 0)
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    probability = exponential / exponential.sum(1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    chosen = np.take_along_axis(probability, order, 1)
    return np.where(sound, order, -1).astype(np.int32), np.where(sound, chosen, np.nan).astype(np.float32)


def _no_answers(count: int, top: int) -> Answers:
    return Answers(np.full((count, top), -1, np.int32), np.full((count, top), np.nan, np.float32))
