"""How much a schedule changes the answers: agreement with the unmerged model, or accuracy where labels are
known.

Agreement over a few hundred pictures is coarse, so the search follows a loss that changes with every
schedule: the mean root of the divergence of the answers' probabilities from the unmerged model's (Kullback
and Leibler), or the cross-entropy of the labels. The root keeps a few hard pictures from deciding alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tome_core.schedule import Schedule
from tome_export.tuning.pictures import Pictures

_SURE = 3.0  # standard errors by which a candidate must be behind to be given up early
_ENOUGH = 48  # pictures, before that is asked
_LOST = 1e3  # loss of an answer that is not a number


@dataclass(frozen=True)
class Score:
    """Of a schedule on all pictures. right: bool [n], same answer as r = 0, or as the label; losses: float64
    [n]."""

    schedule: Schedule
    right: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)

    @property
    def share(self) -> float:
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def rank(self) -> tuple[float, float]:
        """More is better: agreement, and where that is equal the loss."""
        return self.share, -self.loss


class Scorer:
    """Judges schedules of a patched model in Paddle, batch by batch."""

    def __init__(self, model, pictures: Pictures, batch: int = 32) -> None:
        self._model, self._pictures, self._batch = model, pictures, batch
        self._known: dict[tuple[int, ...], Score] = {}
        self._wanted = np.concatenate([_log_probabilities(each) for each in self._logits([0])])
        self.tried = 0

    def score(self, schedule: Schedule, against: Score | None = None) -> Score | None:
        """None: given up, as it is surely worse than `against` on the pictures so far."""
        if schedule.r in self._known:
            return self._known[schedule.r]
        self.tried += 1
        right, losses = np.zeros(0, bool), np.zeros(0)
        for logits in self._logits(list(schedule.r)):
            some_right, some_losses = self._judge(logits, len(losses))
            right, losses = np.append(right, some_right), np.append(losses, some_losses)
            if against is not None and _ENOUGH <= len(losses) < len(self._pictures):
                behind = losses - against.losses[: len(losses)]
                if behind.mean() > _SURE * behind.std(ddof=1) / len(behind) ** 0.5:
                    return None
        found = self._known[schedule.r] = Score(schedule, right, losses)
        return found

    def _judge(self, logits: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
        found = _log_probabilities(logits)
        sound = np.isfinite(logits).all(1)
        wanted = self._wanted[start : start + len(found)]
        if self._pictures.labels is None:
            right = found.argmax(1) == wanted.argmax(1)
            losses = np.sqrt(np.maximum((np.exp(wanted) * (wanted - found)).sum(1), 0))
        else:
            labels = self._pictures.labels[start : start + len(found)]
            right = found.argmax(1) == labels
            losses = -np.take_along_axis(found, labels[:, None], 1)[:, 0]
        return right & sound, np.where(sound, losses, _LOST)

    def _logits(self, r: list[int]) -> Iterator[np.ndarray]:
        import paddle

        self._model.r = r
        for start in range(0, len(self._pictures), self._batch):
            images = self._pictures.images[start : start + self._batch]
            with paddle.no_grad():
                yield self._model(paddle.to_tensor(images)).numpy()


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """float64; a row that holds what is not a number becomes uniform."""
    logits = logits.astype(np.float64)
    logits = np.where(np.isfinite(logits).all(1, keepdims=True), logits, 0)
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))
