"""One runtime's agreement, block by block, as one picture: decisions, noise, and the error of each part."""

from __future__ import annotations

from math import ceil, floor, log10

from tome_export.parity.report.markup import Html, tag
from tome_export.parity.report.numbers import broken, plural, sci
from tome_export.parity.report.schedule import column_width
from tome_export.parity.report.style import HEAT_STEPS
from tome_export.parity.report.words import TENSORS
from tome_export.parity.result import BlockResult, ParityResult

_LEFT, _ROOM = 92, 92  # beside the columns: names, and the limit's label
_DECISIONS, _NOISE, _CELL = 64, 110, 24
_TEXT_FROM = 44  # a column narrower than this has no room for a number
HEAT = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Upper ends of the heat map's steps, as shares of the limit; beyond the last is a step of its own."""
assert len(HEAT) == HEAT_STEPS


def heat_step(error: float, limit: float) -> int:
    """0 to HEAT_STEPS - 1 within the limit, HEAT_STEPS beyond it."""
    share = float("inf") if broken(error) else error / limit
    return next((step for step, end in enumerate(HEAT) if share <= end), HEAT_STEPS)


def parts(result: ParityResult) -> list[str]:
    """The tensors whose errors are known, in the order of the graph."""
    there = {name for block in result.blocks for name in block.errors}
    return [name for name in TENSORS if name in there] + sorted(there - TENSORS.keys())


def panels(result: ParityResult, who: str) -> Html:
    """The picture. who: the runtime and its precision."""
    blocks, names = result.blocks, parts(result)
    step = column_width(len(blocks))
    right = _LEFT + step * len(blocks)
    drawn, y = [], 0
    if result.decisions:
        drawn += _title(y, "Decisions", "how they compare with the reference's, as shares")
        drawn += _decisions(blocks, step, y + 34)
        y += 34 + _DECISIONS + 24
        drawn += _title(y, "Noise of the similarities", "largest difference, log scale; dashed: the limit")
        drawn += _noise(blocks, result.limits.similarity, step, y + 26)
        y += 26 + _NOISE + 28
    drawn += _title(
        y,
        "Error of each part",
        "given the same input, over its largest value; the stronger the colour, the nearer the limit",
    )
    drawn += _heat(blocks, names, result.limits.stage, step, y + 26)
    y += 26 + _CELL * len(names)
    drawn += [
        tag("text", block.block, x=_LEFT + (i + 0.5) * step, y=y + 16, class_="m s")
        for i, block in enumerate(blocks)
    ]
    drawn.append(tag("text", "block", x=_LEFT - 10, y=y + 16, class_="e s"))
    return tag(
        "svg",
        *drawn,
        viewBox=f"0 0 {right + _ROOM:g} {y + 22}",
        width=round(right + _ROOM),
        height=y + 22,
        font_size=12,
        role="img",
        aria_label=f"{who}: decisions, noise and errors per block",
    )


def _title(y: float, name: str, about: str) -> list[Html]:
    return [
        tag(
            "text", tag("tspan", name, font_weight=600), tag("tspan", f"  {about}", class_="s"), x=0, y=y + 12
        )
    ]


def _decisions(blocks, step: float, top: float) -> list[Html]:
    drawn = []
    for column, block in enumerate(blocks):
        x, wide = _LEFT + (column + 0.06) * step, 0.88 * step
        if not block.decisions:
            bar = tag("rect", x=x, y=top, width=wide, height=_DECISIONS, class_="none")
            drawn.append(tag("g", tag("title", f"block {block.block}: {_why_none(block)}"), bar))
            continue
        counts = {"fault": block.faults, "tie": block.near_ties, "agree": block.agreed}
        told = (
            f"block {block.block}: {plural(block.decisions, 'decision')}, {block.agreed:,} agree, "
            f"{plural(block.near_ties, 'near tie')}, {plural(block.faults, 'fault')}"
        )
        bars, y = [], top
        for kind, high in zip(counts, _heights(list(counts.values()), _DECISIONS), strict=True):
            bars.append(tag("rect", x=x, y=y, width=wide, height=high, class_=kind) if high else None)
            y += high
        over = [f"{count:,}" for count in (block.faults, block.near_ties) if count]
        label = (
            tag("text", " + ".join(over), x=x + wide / 2, y=top - 4, class_="m s", font_size=11)
            if over
            else None
        )
        drawn.append(tag("g", tag("title", told), *bars, label))
    drawn.append(tag("text", "100%", x=_LEFT - 10, y=top + 10, class_="e s"))
    drawn.append(tag("text", "0%", x=_LEFT - 10, y=top + _DECISIONS, class_="e s"))
    return drawn


def _why_none(block: BlockResult) -> str:
    return "decisions could not be compared" if block.r else "nothing merges here"


def _heights(counts: list[int], high: float) -> list[float]:
    """In proportion, but what is there at all can be seen; the last one makes room for that."""
    total = max(sum(counts), 1)
    small = [max(high * count / total, 4.0) if count else 0.0 for count in counts[:-1]]
    shrink = min(1.0, (high - (4.0 if counts[-1] else 0.0)) / max(sum(small), 1e-9))
    small = [each * shrink for each in small]
    return [*small, high - sum(small) if counts[-1] else 0.0]


def _noise(blocks, limit: float, step: float, top: float) -> list[Html]:
    known = [block.noise for block in blocks if block.noise and not broken(block.noise)]
    low = floor(log10(min([*known, limit / 10])))
    high = ceil(log10(max(limit * 3, min(max([*known, limit]), limit * 1e6))))
    right = _LEFT + step * len(blocks)

    def level(value: float) -> float:
        place = (log10(value) - low) / (high - low) if value > 0 else 0.0
        return top + _NOISE * (1 - min(1.0, max(0.0, place)))

    drawn = []
    every = ceil((high - low) / 6)
    for power in range(low, high + 1):
        if (power - low) % every == 0:
            y = level(10.0**power)
            drawn.append(tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="g"))
            drawn.append(tag("text", f"1e{power:+03d}", x=_LEFT - 10, y=y + 4, class_="e s"))
    y = level(limit)
    drawn.append(tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="lim", stroke_width=1.5))
    drawn.append(tag("text", f"limit {sci(limit)}", x=right + 6, y=y + 4, class_="limtext"))
    for column, block in enumerate(blocks):
        if block.noise is None or (not block.decisions and not block.noise):
            continue
        x = _LEFT + (column + 0.5) * step
        beyond = broken(block.noise) or block.noise > 10.0**high
        y = top if beyond else level(block.noise)
        over = beyond or block.noise > limit
        shape = (
            tag("path", d=f"M{x - 6:g} {y + 6:g}L{x:g} {y - 5:g}L{x + 6:g} {y + 6:g}Z", class_="dotover")
            if beyond
            else tag("rect", x=x - 4.5, y=y - 4.5, width=9, height=9, class_="dotover")
            if over
            else tag("circle", cx=x, cy=y, r=4, class_="dot")
        )
        told = f"block {block.block}: noise {sci(block.noise)}, limit {sci(limit)}" + (
            ", beyond it" if over else ""
        )
        stem = tag("line", x1=x, x2=x, y1=top + _NOISE, y2=y, class_="stem", stroke_width=2)
        drawn.append(tag("g", tag("title", told), stem, shape))
    return drawn


def _heat(blocks, names: list[str], limit: float, step: float, top: float) -> list[Html]:
    drawn = []
    for row, name in enumerate(names):
        y, label = top + row * _CELL, TENSORS.get(name, name)
        drawn.append(tag("text", label, x=_LEFT - 10, y=y + 16, class_="e"))
        for column, block in enumerate(blocks):
            x = _LEFT + column * step
            box = {"x": x + 1, "y": y + 1, "width": step - 2, "height": _CELL - 2}
            if name not in block.errors:
                drawn.append(tag("rect", **box, class_="none"))
                continue
            error = block.errors[name]
            heat = heat_step(error, limit)
            over = heat == HEAT_STEPS
            told = f"block {block.block}, {label}: {sci(error)}, limit {sci(limit)}" + (
                ", beyond it" if over else ""
            )
            number = "!" if over and step < _TEXT_FROM else ("nan" if broken(error) else sci(error))
            shown = (
                tag("text", number, x=x + step / 2, y=y + 16, class_=f"m k{heat}", font_size=11,
                    font_weight=700 if over else None)
                if over or step >= _TEXT_FROM
                else None
            )  # fmt: skip
            drawn.append(tag("g", tag("title", told), tag("rect", **box, class_=f"h{heat}"), shown))
    return drawn
