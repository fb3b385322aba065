"""One hunt for a schedule: search on half of the pictures, time what was found, judge on the other half."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tome_core.schedule import Schedule
from tome_export.benching.turns import Ratio
from tome_export.evaluation.interrupt import Interrupt
from tome_export.evaluation.metrics import mcnemar
from tome_export.steps import Steps
from tome_export.tuning.costs import Costs, Point, fit_costs
from tome_export.tuning.goal import BASELINES, Goal, best_at_speedup, fastest_at_agreement, fit_at
from tome_export.tuning.measure import Timer
from tome_export.tuning.pictures import Pictures
from tome_export.tuning.result import Agreement, Candidate, Comparison, Tuning
from tome_export.tuning.score import Score, Scorer

_EQUAL = 0.01  # measured to be further from equal speed, the search goes on with what was learned
_AGAIN = 0.25  # of the minutes, at least, for that


@dataclass
class Hunt:
    """One search, and the judgement of what it found."""

    model: object
    goal: Goal
    costs: Costs
    pictures: Pictures
    seed: int
    minutes: float
    steps: Steps
    interrupt: Interrupt

    def run(self, name: str, timer: Timer | None) -> Tuning:
        searched, held = self.pictures.split(self.seed)
        self._end, self._seconds = time.monotonic() + 60 * self.minutes, 0.0
        self._off: dict[str, float] = {}
        self._inside = Scorer(self.model, searched)
        outside = Scorer(self.model, held)
        found, complete, reached = self._search([])
        if self.goal.agreement is not None:  # the fastest that agrees enough on pictures not searched, too
            with self.steps("judge"):
                found = self._confirmed(outside)
        trio = self._trio(found)
        measured: dict[str, Ratio] = {}
        for again in (True, False) if timer is not None else ():
            if self.interrupt.asked:
                break
            with self.steps("speed"):
                points, measured = timer.compare(trio)
            if not again or self._equal(points):
                break
            self._learn(trio, points)
            if self.goal.speedup is not None:
                self._end = max(self._end, time.monotonic() + 60 * _AGAIN * self.minutes)
                found, complete, reached = self._search([list(found.schedule.r)])
            trio = self._trio(found)
            measured = {}
        with self.steps("judge"):
            scores = {key: (self._inside.score(each), outside.score(each)) for key, each in trio.items()}
            base = self._base(outside)
        chosen = self._chosen(scores)
        return Tuning(
            model=name,
            goal=self.goal,
            measure="agreement" if self.pictures.labels is None else "accuracy",
            seed=self.seed,
            searched=len(searched),
            held_out=len(held),
            unreadable=self.pictures.unreadable,
            base=base,
            costs=self.costs,
            candidates=tuple(
                self._candidate(key, trio[key], measured.get(key), *scores[key]) for key in trio
            ),
            chosen=chosen,
            comparisons=tuple(
                _compared(key, scores[chosen][1], pair[1]) for key, pair in scores.items() if key != chosen
            ),
            reached=reached,
            tried=self._inside.tried,
            seconds=self._seconds,
            complete=complete,
            interrupted=self.interrupt.asked,
            notes=() if timer is None else timer.notes,
        )

    def _search(self, first: list[Sequence[float]]) -> tuple[Score, bool, dict[str, float]]:
        """The best on the searched pictures, whether nothing was left to try, and what the others reach."""
        begin = time.monotonic()
        try:
            with self.steps("search"), self.interrupt:
                if self.goal.speedup is not None:
                    found, complete = best_at_speedup(
                        self.costs,
                        self._inside,
                        self.goal.speedup / self._off.get("found", 1.0),
                        first,
                        self.seed,
                        self._more,
                    )
                    return found, complete, {}
                self._climbed, reached, complete = fastest_at_agreement(
                    self.costs, self._inside, self.goal.agreement, self.seed, self._more
                )
                return self._climbed[-1], complete, reached
        finally:
            self._seconds += time.monotonic() - begin

    def _more(self, best: Score) -> bool:
        self.steps.note(
            f"{self._inside.tried} schedules tried, the best right on {best.share:.2%}, loss {best.loss:.4f}"
        )
        return not self.interrupt.asked and time.monotonic() < self._end

    def _confirmed(self, outside: Scorer) -> Score:
        """The fastest that agrees enough on the held-out pictures too; the slowest if none does."""
        for score in reversed(self._climbed):
            if outside.score(score.schedule).share >= self.goal.agreement:
                return score
        return self._climbed[0]

    def _trio(self, found: Score) -> dict[str, Schedule]:
        """The found schedule, and the others that are as fast."""
        speedup = self.goal.speedup or self.costs.speedup(found.schedule) * self._off.get("found", 1.0)
        trio = {"found": found.schedule}
        for name, shape in BASELINES.items():
            fit = fit_at(self.costs, speedup / self._off.get(name, 1.0))
            if (schedule := fit(shape(self.costs.setting.depth))) is not None:
                trio[name] = schedule
        return trio

    def _equal(self, points: dict[str, Point]) -> bool:
        """Whether all are, measured, as fast as asked for, or as the found one."""
        wanted = 1 / self.goal.speedup if self.goal.speedup else points["found"].time
        return all(abs(each.time / wanted - 1) <= _EQUAL for each in points.values())

    def _learn(self, trio: dict[str, Schedule], points: dict[str, Point]) -> None:
        """Take what was measured into the table, and remember how far that is still off."""
        self.costs = fit_costs(
            self.costs.setting, self.costs.milliseconds, (*self.costs.points, *points.values())
        )
        self._off = {name: self.costs.cost(trio[name]) / each.time for name, each in points.items()}

    def _chosen(self, scores: dict[str, tuple[Score, Score]]) -> str:
        """The found one, unless another both agrees more and loses less on the held-out pictures."""
        found = scores["found"][1]
        better = [
            key for key, (_, held) in scores.items() if held.share > found.share and held.loss < found.loss
        ]
        return max(better, key=lambda key: scores[key][1].rank, default="found")

    def _base(self, outside: Scorer) -> tuple[float, float] | None:
        if self.pictures.labels is None:
            return None
        unmerged = self.costs.setting.frame.schedule(0)
        return self._inside.score(unmerged).share, outside.score(unmerged).share

    def _candidate(
        self, name: str, schedule: Schedule, measured: Ratio | None, inside: Score, outside: Score
    ) -> Candidate:
        return Candidate(
            name,
            schedule.r,
            schedule.tokens,
            self.costs.speedup(schedule),
            measured,
            Agreement(inside.share, inside.loss),
            Agreement(outside.share, outside.loss),
        )


def _compared(name: str, chosen: Score, other: Score) -> Comparison:
    only_chosen = int((chosen.right & ~other.right).sum())
    only_other = int((other.right & ~chosen.right).sum())
    return Comparison(name, only_chosen, only_other, mcnemar(only_chosen, only_other))
