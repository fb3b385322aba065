"""Tokens and multiply-adds of every block, as bars."""

from __future__ import annotations

from tome_export.console import giga
from tome_export.manifest import Manifest
from tome_export.parity.report.markup import Html, paragraph, section, table, tag
from tome_export.parity.report.numbers import plural

_LEFT, _HIGH, _TOP = 92, 110, 18


def schedule(manifest: Manifest) -> Html:
    tome, model = manifest.tome, manifest.model
    merged = sum(tome.r)
    if merged:
        base, left = tome.macs.base, tome.macs.tome
        told = (
            f"{tome.tokens[0]} tokens enter and {tome.tokens[-1]} leave: {merged} merge away in "
            f"{sum(r > 0 for r in tome.r)} of {plural(model.depth, 'block')}. Multiply-adds per image: "
            f"{giga(base)} without merging, {giga(left)} with it; {giga(base - left)} saved "
            f"({1 - left / base:.0%}, {base / left:.2f}x fewer)."
        )
    else:
        told = (
            f"Nothing merges (r = 0): {tome.tokens[0]} tokens go through all {plural(model.depth, 'block')}, "
            f"{giga(tome.macs.base)} multiply-adds per image."
        )
    rows = [
        (
            block,
            tome.tokens[block],
            r,
            tome.tokens[block + 1],
            giga(tome.macs.tome_blocks[block]),
            giga(tome.macs.base_blocks[block]),
        )
        for block, r in enumerate(tome.r)
    ]
    head = ("block", "tokens in", "r", "tokens out", "multiply-adds", "at r = 0")
    return section(
        "Schedule",
        paragraph(told),
        _legend(merged > 0),
        tag("figure", _bars(manifest), class_="chart"),
        tag("details", tag("summary", "The same in numbers"), table(head, rows, right=range(1, 6))),
        name="schedule",
    )


def _legend(merges: bool) -> Html:
    items = [("kept", "tokens left, multiply-adds done")]
    items += [("gone", "merged away (r), multiply-adds saved")] if merges else []
    return tag("div", *(tag("span", swatch(kind), words) for kind, words in items), class_="legend")


def swatch(kind: str) -> Html:
    box = tag("rect", width=12, height=12, rx=2, class_=kind)
    return tag("svg", box, width=12, height=12, viewBox="0 0 12 12", aria_hidden="true")


def column_width(blocks: int) -> float:
    """Pixels for one block in a picture as wide as the page."""
    return min(64.0, max(20.0, 760 / blocks))


def _bars(manifest: Manifest) -> Html:
    tome = manifest.tome
    step = column_width(len(tome.r))
    counts = list(zip(tome.tokens[:-1], tome.r, tome.tokens[1:], strict=True))
    tokens = _panel(
        "tokens",
        [(left, entering) for entering, _, left in counts],
        [f"-{r}" if r else "0" for r in tome.r],
        [
            f"block {b}: {entering} tokens in, {r} merged, {left} out"
            for b, (entering, r, left) in enumerate(counts)
        ],
        str(tome.tokens[0]),
        step,
        _TOP,
    )
    pairs = list(zip(tome.macs.tome_blocks, tome.macs.base_blocks, strict=True))
    shares = [f"{after / max(before, 1):.0%}" for after, before in pairs]
    macs = _panel(
        "multiply-adds",
        pairs,
        shares if step >= 30 else [""] * len(shares),
        [
            f"block {b}: {giga(after)} multiply-adds, {shares[b]} of {giga(before)}"
            for b, (after, before) in enumerate(pairs)
        ],
        giga(max(tome.macs.base_blocks)),
        step,
        _TOP + _HIGH + 34,
    )
    bottom = _TOP + 2 * _HIGH + 34
    axis = [
        tag("text", b, x=_LEFT + (b + 0.5) * step, y=bottom + 16, class_="m s") for b in range(len(tome.r))
    ]
    axis.append(tag("text", "block", x=_LEFT - 10, y=bottom + 16, class_="e s"))
    width, height = _LEFT + step * len(tome.r) + 4, bottom + 22
    return tag(
        "svg",
        *tokens,
        *macs,
        *axis,
        viewBox=f"0 0 {width:g} {height}",
        width=round(width),
        height=height,
        font_size=12,
        role="img",
        aria_label="Tokens and multiply-adds per block",
    )


def _panel(
    name: str,
    pairs: list[tuple[int, int]],
    labels: list[str],
    titles: list[str],
    scale: str,
    step: float,
    top: float,
) -> list[Html]:
    """A bar for each (part, whole), under its label, with a tooltip. scale: what the highest stands for."""
    bottom, largest = top + _HIGH, max(whole for _, whole in pairs)
    drawn = [
        tag("text", name, x=_LEFT - 10, y=top + 11, class_="e"),
        tag("text", scale, x=_LEFT - 10, y=top + 27, class_="e s"),
        tag("line", x1=_LEFT, x2=_LEFT + step * len(pairs), y1=bottom, y2=bottom, class_="g"),
    ]
    for index, ((part, whole), label, title) in enumerate(zip(pairs, labels, titles, strict=True)):
        x, wide = _LEFT + (index + 0.12) * step, 0.76 * step
        low, high = (_HIGH * value / max(largest, 1) for value in (part, max(part, whole)))
        drawn.append(
            tag(
                "g",
                tag("title", title),
                tag("rect", x=x, y=bottom - high, width=wide, height=high, class_="gone"),
                tag("rect", x=x, y=bottom - low, width=wide, height=low, class_="kept"),
                tag("text", label, x=x + wide / 2, y=bottom - high - 4, class_="m s", font_size=11),
            )
        )
    return drawn
