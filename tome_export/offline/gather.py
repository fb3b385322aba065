"""Rows come in any order; a shard is finished when all of its rows are there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tome_export.offline.table import Answers


class Gatherer:
    """Holds the rows of shards in progress, as many as there are tasks at work. `rows`: seen so far."""

    def __init__(self) -> None:
        self.rows = 0
        self._waiting: dict[int, list[dict[str, np.ndarray]]] = {}

    def add(self, batch: dict[str, np.ndarray], count_of) -> Iterator[tuple[int, Answers]]:
        """Take a batch (see `stages.Predictor`); yields the shards that it completes.

        count_of: number of a shard -> its images.
        """
        self.rows += len(batch["shard"])
        for shard in np.unique(batch["shard"]).tolist():
            rows = batch["shard"] == shard
            held = self._waiting.setdefault(shard, [])
            held.append({name: column[rows] for name, column in batch.items()})
            if sum(len(each["shard"]) for each in held) == count_of(shard):
                del self._waiting[shard]
                yield shard, _in_order(held)


def _in_order(held: list[dict[str, np.ndarray]]) -> Answers:
    order = np.argsort(np.concatenate([each["position"] for each in held]))
    column = {name: np.concatenate([each[name] for each in held])[order] for name in held[0]}
    return Answers(column["classes"], column["probabilities"], column["error"].tolist())
