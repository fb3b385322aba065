"""What the linter says: findings, and one verdict a target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RED, YELLOW = "red", "yellow"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one node (or, with an empty `node`, with the model) for one target.

    severity: "red" if the target refuses the model or computes something else; "yellow" if it runs, but
    slower, less exactly, or not on every version. source: where that is written, or how it was found out.
    """

    target: str
    severity: str
    node: str
    operator: str
    problem: str
    advice: str
    source: str


@dataclass(frozen=True)
class Group:
    """The same finding over `count` nodes, the first of which is `example`."""

    example: Finding
    count: int


@dataclass(frozen=True)
class Verdict:
    """What one target makes of a model. operators: nodes checked. note: a caveat about the target itself."""

    target: str
    title: str
    operators: int
    red: int
    yellow: int
    note: str = ""

    @property
    def word(self) -> str:
        """ "fails" with a red finding, "runs, but" with a yellow one, else "clean"."""
        return "fails" if self.red else "runs, but" if self.yellow else "clean"


@dataclass(frozen=True)
class Report:
    """Verdicts, in the order the targets were asked for, and all findings."""

    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> tuple[str, ...]:
        """The targets without a red finding."""
        return tuple(verdict.target for verdict in self.verdicts if not verdict.red)


def has_red(findings: Iterable[Finding]) -> bool:
    """Whether any of them is red."""
    return any(finding.severity == RED for finding in findings)


def group(findings: Sequence[Finding]) -> list[Group]:
    """Findings that differ in the node only, together; red ones first, otherwise as they came."""
    counts: dict[tuple[str, ...], list[Finding]] = {}
    for each in findings:
        key = (each.target, each.severity, each.operator, each.problem, each.advice, each.source)
        counts.setdefault(key, []).append(each)
    groups = [Group(same[0], len(same)) for same in counts.values()]
    return sorted(groups, key=lambda entry: entry.example.severity != RED)
