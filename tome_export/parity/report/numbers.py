"""Figures as text, and as table cells that keep every digit in their tooltip."""

from __future__ import annotations

import re
from math import isfinite

from tome_export.parity.report.markup import Html, join, tag

WORST = 3.4e38
"""From here on a figure stands for NaN or infinity: see `tome_export.parity.figures`."""


def sci(value: float | None) -> str:
    """ "4.4e-07", as the terminal has it."""
    if value is None:
        return "–"
    if broken(value):
        return "not finite"
    return "0" if value == 0 else f"{value:.1e}"


def share(value: float | None) -> str:
    """ "100%", "99.98%"; never 100% for what is less."""
    if value is None:
        return "–"
    if value in (0.0, 1.0):
        return f"{value:.0%}"
    digits = next((n for n in (1, 2, 3, 4) if round(100 * value, n) not in (0.0, 100.0)), 5)
    return f"{100 * value:.{digits}f}%"


def decibels(value: float | None) -> str:
    return "no difference" if value is None else f"{value:.1f} dB"


def broken(value: float) -> bool:
    return not isfinite(value) or value >= WORST


def cell(value: float | None, shown: str | None = None, over: float | None = None) -> Html:
    """A table cell; `over`: what the value may not exceed."""
    wrong = value is not None and over is not None and not value <= over
    exact = None if value is None else repr(value)
    return tag("td", sci(value) if shown is None else shown, class_="n over" if wrong else "n", title=exact)


def unbroken(sentence: str) -> Html:
    """A sentence in which no line ends inside a figure such as 1.7e-05."""
    parts = re.split(r"(\d(?:\.\d+)?e[+-]\d+)", sentence)
    return join(tag("span", part, class_="figure") if i % 2 else part for i, part in enumerate(parts))


def plural(count: int, one: str, more: str | None = None) -> str:
    """ "1 input", "2,000 inputs"."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def listed(parts: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
