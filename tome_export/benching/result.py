"""What a benchmark found: the dataclasses are the schema of `tome-export bench --json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from tome_export.benching.machine import Machine
from tome_export.benching.turns import Ratio, ratio

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A model on a runtime. macs: multiply-adds per image, None for an ONNX file of unknown make. against:
    position of what it is compared with. engine_memory: bytes resident with the engine imported and no model
    opened."""

    name: str
    model: str
    path: str
    runtime: str
    version: str
    precision: str
    notes: tuple[str, ...]
    r: tuple[int, ...] | None
    macs: int | None
    against: int | None
    engine_memory: int | None


@dataclass(frozen=True)
class Timed:
    """One entry at one batch size. median_ms, p95_ms: of a run of the whole batch. ratio: how many times
    faster than what it is compared with. memory: bytes resident at most in a process of its own.
    merging: share of the time in operators that merging takes; known on ONNX Runtime only."""

    batch: int
    entry: int
    runs: int
    median_ms: float
    p95_ms: float
    images_per_second: float
    ratio: Ratio | None
    memory: int | None = None
    merging: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """entries: those measured, then those they are compared with. timed: by batch, then in the entries'
    order. rounds: by batch size. notes: who did not take part, and why."""

    created: str
    machine: Machine
    device: str
    threads: int | None
    rounds: dict[str, int]
    runs_a_round: int
    entries: tuple[Entry, ...]
    timed: tuple[Timed, ...]
    notes: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION

    def fewer_macs(self, entry: Entry) -> float | None:
        """How many times fewer multiply-adds than what it is compared with."""
        if entry.against is None or entry.macs is None:
            return None
        other = self.entries[entry.against].macs
        return None if other is None else other / entry.macs

    def to_json(self) -> str:
        fields = asdict(self)
        for entry, found in zip(fields["entries"], self.entries, strict=True):
            entry["fewer_macs"] = self.fewer_macs(found)
        return json.dumps(fields, indent=2, allow_nan=False)


def figures(
    seconds: np.ndarray, batch: int, entries: tuple[Entry, ...], memory: Mapping[int, int | None]
) -> list[Timed]:
    """seconds: float [rounds, entries, repeats]. memory: bytes by entry."""
    found = []
    for index, entry in enumerate(entries):
        own = seconds[:, index]
        median, late = np.percentile(own, (50, 95))
        found.append(
            Timed(
                batch,
                index,
                own.size,
                float(median) * 1e3,
                float(late) * 1e3,
                batch / float(median),
                None if entry.against is None else ratio(own, seconds[:, entry.against]),
                memory.get(index),
            )
        )
    return found
