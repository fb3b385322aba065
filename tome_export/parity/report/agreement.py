"""Agreement per block: a picture and a table for each runtime and precision."""

from __future__ import annotations

from tome_export.parity.report import words
from tome_export.parity.report.markup import Html, paragraph, section, table, tag
from tome_export.parity.report.numbers import cell
from tome_export.parity.report.panels import HEAT, panels, parts
from tome_export.parity.report.schedule import swatch
from tome_export.parity.result import ParityResult
from tome_export.parity.verify import Verification


def agreement(found: Verification) -> Html | None:
    if not found.results:
        return None
    merges = any(found.bundle.manifest.tome.r)
    told = (
        "Each token that might merge is one decision. It agrees with the reference's, or differs by less "
        "than the numerical noise (a near tie), or is a fault. "
        if merges
        else "Nothing merges, so there are no decisions. "
    )
    told += (
        "The heat map shows each part of each block by itself: the reference computes it from what the "
        "runtime "
    )
    told += "had before it."
    figures = [part for result in found.results for part in (tag("h3", words.who(result)), *_figure(result))]
    return section(
        "Agreement, block by block",
        paragraph(told),
        _decision_legend() if merges else None,
        _heat_legend(),
        *figures,
        name="agreement",
    )


def _decision_legend() -> Html:
    kinds = {"agree": "agree", "tie": "near ties", "fault": "faults", "none": "nothing merges"}
    return tag("div", *(tag("span", swatch(kind), name) for kind, name in kinds.items()), class_="legend")


def _heat_legend() -> Html:
    named = [*(f"to {end:.0%}" for end in HEAT), "beyond"]
    steps = [tag("span", swatch(f"h{step}"), name) for step, name in enumerate(named)]
    return tag("div", tag("span", "Error, as a share of its limit:"), *steps, class_="legend")


def _figure(result: ParityResult) -> list[Html]:
    if not any(block.errors or block.decisions for block in result.blocks):
        return [paragraph("Its blocks could not be looked into.", class_="soft")]
    lost = any(block.r for block in result.blocks) and not result.decisions
    told = paragraph("Its decisions could not be compared.", class_="soft") if lost else None
    drawn = tag("figure", panels(result, words.who(result)), class_="chart")
    return [told or Html(), drawn, tag("details", tag("summary", "The same in numbers"), _table(result))]


def _table(result: ParityResult) -> Html:
    names, limits = parts(result), result.limits
    head = ["block", "tokens", "r", "decisions", "agree", "near ties", "faults", "noise"]
    head += [words.TENSORS.get(name, name) for name in names]
    rows = []
    for block in result.blocks:
        row: list[object] = [block.block, block.tokens, block.r]
        row += [f"{count:,}" for count in (block.decisions, block.agreed, block.near_ties)]
        row += [cell(block.faults, f"{block.faults:,}", over=0), cell(block.noise, over=limits.similarity)]
        row += [cell(block.errors.get(name), over=limits.stage) for name in names]
        rows.append(row)
    rows.append(["limit", *[""] * 6, cell(limits.similarity), *[cell(limits.stage)] * len(names)])
    return table(head, rows, right=range(1, len(head)))
