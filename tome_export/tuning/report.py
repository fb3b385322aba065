"""What the command prints at its end."""

from __future__ import annotations

from collections.abc import Sequence

from tome_export.console import table
from tome_export.tuning.result import Candidate, Comparison, Tuning

_FEW = 200  # held-out pictures: below this, a picture is more than half a point


def as_text(found: Tuning) -> str:
    parts = [_costs(found), _candidates(found), _lists(found.candidates)]
    parts.append("\n".join(_verdict(found)))
    notes = [f"note: {each}" for each in _notes(found)]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def schedule_option(r: Sequence[int]) -> str:
    """As --r takes it: without the zeros at its end, which are implied, but always a list."""
    last = max([2, *(block + 1 for block, each in enumerate(r) if each)])
    return ",".join(map(str, r[:last])) if len(r) > 1 else str(r[0])


def _costs(found: Tuning) -> str:
    costs, setting = found.costs, found.costs.setting
    threads = f", {setting.threads} threads" if setting.threads else ""
    counts = [setting.tokens, *reversed(costs.levels)]
    rows = [
        ["tokens", *counts],
        ["milliseconds a block", *(f"{costs.block_ms(each):.3g}" for each in counts)],
    ]
    adds = costs.milliseconds * sum(costs.merging)
    head = (
        f"{setting.runtime} {setting.version}, {setting.precision}, {setting.device}{threads}, "
        f"batch {setting.batch}: r = 0 takes {costs.milliseconds:.3g} ms"
    )
    tail = (
        f"  merging adds {adds:.2g} ms to the first block; the table is within {costs.error:.1%} of "
        f"{len(costs.points)} schedules timed"
    )
    return f"{head}\n{table(rows, right=range(1, len(counts) + 1))}\n{tail}"


def _candidates(found: Tuning) -> str:
    measured = any(each.measured for each in found.candidates)
    rows = [["", "tokens", "speed-up", *(["measured"] if measured else []), "searched", "held out", "loss"]]
    if found.base is not None:
        share = [f"{each:.2%}" for each in found.base]
        rows.append(
            ["r = 0", str(found.costs.setting.tokens), "1.00x", *([""] if measured else []), *share, ""]
        )
    for each in found.candidates:
        rows.append(
            [
                each.name,
                f"{each.tokens[0]} -> {each.tokens[-1]}",
                f"{each.predicted:.2f}x",
                *([str(each.measured or "")] if measured else []),
                f"{each.searched.share:.2%}",
                f"{each.held_out.share:.2%}",
                f"{each.held_out.loss:.4f}",
            ]
        )
    what = "agreement with r = 0" if found.measure == "agreement" else "accuracy"
    head = f"{what} on {found.searched} searched and {found.held_out} held-out pictures"
    return f"{head}\n{table(rows, right=range(2, len(rows[0])))}"


def _lists(candidates: Sequence[Candidate]) -> str:
    width = max(len(str(r)) for each in candidates for r in each.r)
    return table(
        [
            ("r of each block", ""),
            *((each.name, " ".join(f"{r:>{width}}" for r in each.r)) for each in candidates),
        ]
    )


def _verdict(found: Tuning) -> list[str]:
    lines = []
    if found.chosen != "found":
        lines.append(f"held out, the {found.chosen} schedule does better than the one found: use that")
    lines += [_compared(found.chosen, each, found.measure) for each in found.comparisons]
    if found.reached:
        reach = ", ".join(f"{name} up to {speedup:.2f}x" for name, speedup in found.reached.items())
        lines.append(f"on the searched pictures, enough at {reach}")
    return lines


def _compared(chosen: str, each: Comparison, measure: str) -> str:
    what = "agrees with r = 0" if measure == "agreement" else "is right"
    chance = "more than chance" if each.p_value < 0.05 else "may be chance"
    return (
        f"held out, {chosen} {what} on {each.only_chosen} pictures where {each.other} does not, and "
        f"{each.other} on {each.only_other} where {chosen} does not: {chance} (p = {each.p_value:.2g})"
    )


def _notes(found: Tuning) -> list[str]:
    notes = list(found.notes)
    goal, best = found.goal, found.best
    if found.unreadable:
        notes.append(f"{found.unreadable} pictures could not be read")
    if found.held_out < _FEW:
        notes.append(f"{found.held_out} held-out pictures tell shares apart by {1 / found.held_out:.1%} only")
    if not found.complete:
        notes.append(
            f"the search ended early, after {found.tried} schedules; more time may find better (--minutes)"
        )
    if goal.speedup is not None and best.measured is not None and best.measured.high < goal.speedup:
        notes.append(f"measured, it is not quite as fast as asked for: {best.measured}")
    if goal.agreement is not None and best.held_out.share < goal.agreement:
        notes.append(
            f"on the held-out pictures it reaches {best.held_out.share:.2%}, less than was asked for"
        )
    return notes
