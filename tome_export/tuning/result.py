"""What `tune` found; the schema of `--json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from tome_export.benching.turns import Ratio
from tome_export.tuning.costs import Costs
from tome_export.tuning.goal import Goal

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Agreement:
    """On a set of pictures. share: same answer as r = 0, or right where labels are known. loss: mean root of
    the divergence from r = 0 in nats, or cross-entropy."""

    share: float
    loss: float


@dataclass(frozen=True)
class Candidate:
    """A schedule. r: as applied. predicted: speed-up by the table of costs; measured: in turns with r = 0."""

    name: str
    r: tuple[int, ...]
    tokens: tuple[int, ...]
    predicted: float
    measured: Ratio | None
    searched: Agreement
    held_out: Agreement


@dataclass(frozen=True)
class Comparison:
    """The chosen schedule and another on the held-out pictures: how many only one of them has right."""

    other: str
    only_chosen: int
    only_other: int
    p_value: float


@dataclass(frozen=True)
class Tuning:
    """measure: "agreement" with r = 0, or "accuracy". base: accuracy of r = 0, searched and held out, if
    known. candidates: the found schedule, then the constant and the decreasing one that are as fast by the
    table. chosen: name of the one to use: the found one, unless another does better on the held-out pictures.
    reached: speed-up up to which the other two agree enough on the searched pictures, where agreement was
    asked for. complete: the search came to its end; interrupted: by the user. tried: schedules. seconds: of
    the search."""

    model: str
    goal: Goal
    measure: str
    seed: int
    searched: int
    held_out: int
    unreadable: int
    base: tuple[float, float] | None
    costs: Costs
    candidates: tuple[Candidate, ...]
    chosen: str
    comparisons: tuple[Comparison, ...]
    reached: dict[str, float]
    tried: int
    seconds: float
    complete: bool
    interrupted: bool
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Candidate:
        return next(each for each in self.candidates if each.name == self.chosen)

    def to_json(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=1)
