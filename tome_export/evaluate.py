"""Measure a bundle's accuracy on labelled pictures, or two bundles' side by side.

from tome_export.evaluate import evaluate

result = evaluate("./infer", "./val")
result.scores[0].top1            # 0.8123
result.outcomes.answers[0]       # the answers picture by picture
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import EvaluationError, RequestError
from tome_export.evaluation.dataset import Dataset, read_dataset
from tome_export.evaluation.metrics import mcnemar, wilson_interval
from tome_export.evaluation.outcomes import Model, Outcomes, Watch, collect
from tome_export.evaluation.pool import default_workers, open_supply
from tome_export.runtimes import Runtime, artifact_of, open_runtime
from tome_export.runtimes.base import check_threads, parse_device

BATCH = 32


@dataclass(frozen=True)
class Contender:
    """A bundle, and how to run it. runtime "" is the first format in the bundle that has the precision."""

    bundle: Bundle
    runtime: str = ""
    precision: str = "fp32"

    @classmethod
    def open(cls, folder: str | Path | Bundle, runtime: str = "", precision: str = "fp32") -> Contender:
        """Raises BundleError, or RequestError for a runtime there is not."""
        bundle = folder if isinstance(folder, Bundle) else Bundle.open(folder)
        name = runtime or bundle.first_format(precision)
        artifact_of(name, bundle, precision)
        return cls(bundle, name, precision)


@dataclass(frozen=True)
class Score:
    """One model's result. Shares are of the pictures that could be read. `top1_interval`: 95 % confidence.
    `not_numbers`: pictures whose logits held NaN or infinity; they count as wrong. `images_per_second`: in
    the model alone."""

    bundle: str
    runtime: str
    version: str
    precision: str
    device: str
    notes: tuple[str, ...]
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    not_numbers: int
    images_per_second: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same pictures. `agreement`: share with the same best class, right or wrong. The four
    counts are of pictures by which model had them right. `p_value`: McNemar's exact test of equal accuracy.
    """

    agreement: float
    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. `images`: how many were asked for; `evaluated`: read and answered. `waiting`:
    share of `seconds` in which no model had a picture to work on. `classes`: how names became class indices.
    """

    data: str
    classes: str
    images: int
    evaluated: int
    ignored_files: int
    unreadable: tuple[tuple[str, str], ...]
    interrupted: bool
    batch: int
    workers: int
    seconds: float
    images_per_second: float
    waiting: float
    scores: tuple[Score, ...]
    comparison: Comparison | None
    dataset: Dataset = field(repr=False)
    outcomes: Outcomes = field(repr=False)


def evaluate(
    contenders: Contender | Bundle | str | Path | Sequence[Contender | Bundle | str | Path],
    data: str | Path,
    labels_file: str | Path | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch: int = BATCH,
    workers: int | None = None,
    limit: int | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Run one or two bundles on the labelled pictures in `data`.

    contenders: a bundle, its folder, or a `Contender`; or two of them, which are given the same pictures,
    each decoded once. data: a folder of class folders, or with `labels_file` (lines of `path label`) any
    folder; `evaluation.classes` has the rule for names. batch: pictures at a time. workers: processes that
    prepare them; None chooses, 0 prepares them here. limit: evaluate this many, spread evenly over all.
    watch: follows it, and may stop it early.
    Raises RequestError, BundleError, MissingExtraError, WorkerError; EvaluationError: no picture was read.
    """
    parse_device(device)  # such mistakes before anything is started
    check_threads(threads)
    contenders = _opened(contenders)
    manifest = contenders[0].bundle.manifest
    dataset = read_dataset(data, labels_file, manifest.labels, manifest.model.num_classes).limited(limit)
    workers = default_workers() if workers is None else workers
    outcomes, scores = _run(contenders, dataset, device, threads, batch, workers, watch or Watch())
    unreadable = tuple((dataset.samples[i].path, outcomes.errors[i]) for i in sorted(outcomes.errors))
    interrupted = outcomes.finished < len(dataset.samples)
    if not scores and not interrupted:
        path, reason = unreadable[0]
        raise EvaluationError(
            f"none of {len(unreadable)} pictures could be read; the first: {path}: {reason}"
        )
    evaluated, seconds = int(outcomes.read.sum()), outcomes.seconds
    return Evaluation(
        data=str(data),
        classes=dataset.rule,
        images=len(dataset.samples),
        evaluated=evaluated,
        ignored_files=dataset.ignored,
        unreadable=unreadable,
        interrupted=interrupted,
        batch=batch,
        workers=workers,
        seconds=seconds,
        images_per_second=evaluated / seconds if seconds else 0.0,
        waiting=outcomes.waited / seconds if seconds else 0.0,
        scores=scores,
        comparison=_compare(outcomes) if len(scores) == 2 else None,
        dataset=dataset,
        outcomes=outcomes,
    )


def _run(
    contenders: Sequence[Contender],
    dataset: Dataset,
    device: str,
    threads: int | None,
    batch: int,
    workers: int,
    watch: Watch,
) -> tuple[Outcomes, tuple[Score, ...]]:
    """The answers, and a score for each contender unless no picture was read."""
    recipes = list(dict.fromkeys(each.bundle.manifest.preprocess for each in contenders))
    paths = [sample.path for sample in dataset.samples]
    with ExitStack() as stack:
        # The workers first: they fill their queue while the engines load.
        supply = open_supply(
            dataset.root, paths, recipes, batch=batch, workers=workers, stopped=lambda: watch.stopped()
        )
        stack.enter_context(supply)
        models = []
        for each in contenders:
            runtime = open_runtime(
                each.runtime, each.bundle, precision=each.precision, device=device, threads=threads
            )
            stack.enter_context(runtime)
            described = each.bundle.manifest
            recipe = recipes.index(described.preprocess)
            models.append(Model(runtime, described.model.num_classes, recipe))
        outcomes = collect(models, dataset, supply, watch)
    if not outcomes.read.any():
        return outcomes, ()
    runtimes = [model.runtime for model in models]
    scored = enumerate(zip(contenders, runtimes, strict=True))
    return outcomes, tuple(_score(each, runtime, outcomes, i) for i, (each, runtime) in scored)


def _opened(
    contenders: Contender | Bundle | str | Path | Sequence[Contender | Bundle | str | Path],
) -> list[Contender]:
    """One or two contenders with the same classes, their runtimes named."""
    given = [contenders] if isinstance(contenders, (Contender, Bundle, str, Path)) else list(contenders)
    if not 1 <= len(given) <= 2:
        raise RequestError(f"evaluate takes one or two bundles, not {len(given)}")
    opened = [
        Contender.open(each.bundle, each.runtime, each.precision)
        if isinstance(each, Contender)
        else Contender.open(each)
        for each in given
    ]
    _check_same_classes(opened)
    return opened


def _check_same_classes(contenders: Sequence[Contender]) -> None:
    first, last = contenders[0].bundle.manifest, contenders[-1].bundle.manifest
    if first.model.num_classes != last.model.num_classes:
        raise RequestError(
            f"the bundles cannot be compared: {first.model.num_classes} and {last.model.num_classes} classes"
        )
    if first.labels and last.labels and first.labels != last.labels:
        raise RequestError("the bundles cannot be compared: their labels differ")


def _score(contender: Contender, runtime: Runtime, outcomes: Outcomes, model: int) -> Score:
    count, answers = int(outcomes.read.sum()), outcomes.answers[model]
    right = int(outcomes.correct(model).sum())
    return Score(
        bundle=str(contender.bundle.path),
        runtime=runtime.name,
        version=runtime.version,
        precision=contender.precision,
        device=runtime.device,
        notes=runtime.notes,
        top1=right / count,
        top1_interval=wilson_interval(right, count),
        top5=int(outcomes.correct(model, top=5).sum()) / count,
        not_numbers=int((answers.classes[outcomes.read, 0] < 0).sum()),
        images_per_second=count / answers.seconds,
    )


def _compare(outcomes: Outcomes) -> Comparison:
    first, second = outcomes.correct(0), outcomes.correct(1)
    best_first, best_second = (answers.classes[outcomes.read, 0] for answers in outcomes.answers)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    both = int((first & second).sum())
    return Comparison(
        agreement=float(np.mean(best_first == best_second)),
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=int(outcomes.read.sum()) - both - only_first - only_second,
        p_value=mcnemar(only_first, only_second),
    )
