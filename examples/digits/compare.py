"""Export trained models at several r and count right answers, in dygraph and on every runtime there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from examples.digits.data import CLASSES, PRESET, Digits
from examples.digits.train import BATCH, PEAK_RATE, contiguous, load, new_model, new_optimizer, step
from tome_core.schedule import RSpec
from tome_export import Bundle, export
from tome_export.benching.turns import Timing, interleave
from tome_export.errors import RequestError
from tome_export.request import PRECISIONS
from tome_export.runtimes import RUNTIMES, Runtime, open_runtime, probe


@dataclass(frozen=True)
class Score:
    """right: of `total` held-out digits. same: predictions equal to those of the Paddle model in dygraph."""

    where: str
    right: int
    same: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.right / self.total


@dataclass(frozen=True)
class Row:
    """What a model trained with `trained_r` does at `r`. scores: dygraph first, then each runtime."""

    trained_r: RSpec
    r: RSpec
    tokens: tuple[int, ...]
    scores: tuple[Score, ...]


def compare(
    checkpoint: Path,
    trained_r: RSpec,
    r: RSpec,
    digits: Digits,
    folder: Path,
    precisions: Sequence[str] = ("fp32",),
) -> Row:
    """Export to `folder`, with the proof of agreement that goes with it, and run the held-out digits.

    precisions: fp32, and of int8 and bf16 what there shall be besides, where this machine can run it.
    """
    model = load(checkpoint, r)
    images = digits.images
    with paddle.no_grad():
        expected = np.concatenate([model(paddle.to_tensor(part)).numpy() for part in _parts(images)])
    made = [precision for precision in precisions if precision in PRECISIONS]
    # No floor for int8: how much it agrees is what the table is to show.
    floor = 0.0 if "int8" in made else None
    bundle = export(
        model, folder, preprocess=PRESET, labels=CLASSES, force=True, precisions=made, min_agreement=floor
    )
    scores = [_score("dygraph", expected, expected, digits)]
    for runtime, where in open_runtimes(bundle, precisions):
        logits = np.concatenate([runtime.run(part)["logits"] for part in _parts(images)])
        scores.append(_score(where, logits, expected, digits))
    return Row(trained_r, r, bundle.manifest.tome.tokens, tuple(scores))


def open_runtimes(bundle: Bundle, precisions: Sequence[str] = ()) -> Iterator[tuple[Runtime, str]]:
    """Every runtime that works here, with every precision it finds in the bundle, or among `precisions` and
    makes by itself; and what to call it."""
    artifacts = {(artifact.format, artifact.precision): None for artifact in bundle.manifest.artifacts}
    precisions = dict.fromkeys([precision for _, precision in artifacts] + list(precisions))
    for name in RUNTIMES:
        if not probe(name).usable:
            continue
        for precision in precisions:
            try:
                runtime = open_runtime(name, bundle, precision=precision)
            except RequestError:
                if (name, precision) in artifacts:
                    raise
                continue  # the bundle has nothing of the kind
            with runtime:
                yield runtime, f"{runtime.name} {precision}"


def training_speed(r: RSpec, rounds: int) -> Timing:
    """How much faster is a training step with merging? The steps of both models take turns."""
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.normal(size=(BATCH, 3, 32, 32)).astype(np.float32))
    labels = paddle.to_tensor(rng.integers(0, len(CLASSES), BATCH))
    steps = {}
    for each in (0, r):
        model = new_model(each, seed=0)
        optimizer = new_optimizer(model, PEAK_RATE)
        steps[str(each)] = lambda model=model, optimizer=optimizer: step(model, optimizer, images, labels)
    with contiguous():
        return interleave(steps, rounds)[str(r)]


def _score(where: str, logits: np.ndarray, expected: np.ndarray, digits: Digits) -> Score:
    found, wanted = logits.argmax(-1), expected.argmax(-1)
    right, same = int((found == digits.labels).sum()), int((found == wanted).sum())
    return Score(where, right, same, len(found))


def _parts(images: np.ndarray) -> Sequence[np.ndarray]:
    return np.array_split(images, -(-len(images) // BATCH))
