"""HTML and SVG elements as text. What is not `Html` already is escaped, so nothing gets in by accident."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = {"meta", "br"}


class Html(str):
    """Text that is markup."""


def text(value: object) -> Html:
    """Escaped. What neither HTML nor UTF-8 can hold (control characters, bytes in a file's name that are no
    text) is shown as U+FFFD."""
    safe = "".join(
        letter
        if letter in "\n\t" or (letter >= " " and not "\x7f" <= letter <= "\x9f" and not _stray(letter))
        else "\ufffd"
        for letter in str(value)
    )
    return Html(html.escape(safe))


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """An element. `class_` is class, `stroke_width` stroke-width; an attribute that is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    start = f"<{name}{written}>"
    return Html(start if name in _VOID else f"{start}{join(inside)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, None left out."""
    return Html(
        between.join(part if isinstance(part, Html) else text(part) for part in parts if part is not None)
    )


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    right: Iterable[int] = (),
    caption: str | None = None,
) -> Html:
    """A table in a frame that scrolls if it is too wide. Columns in `right` hold numbers. A cell may be a
    `td` element itself. The first of each row is its heading."""
    numbers = set(right)

    def cell(name: str, column: int, value: object) -> Html:
        if isinstance(value, Html) and value.startswith("<td"):
            return value
        return tag(name, value, class_="n" if column in numbers else None)

    top = tag(
        "tr",
        *(tag("th", each, scope="col", class_="n" if i in numbers else None) for i, each in enumerate(head)),
    )
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(cell("td", i, each) for i, each in enumerate(row) if i))
        for row in rows
    ]
    inside = tag("table", caption and tag("caption", caption), tag("thead", top), tag("tbody", *body))
    return tag("div", inside, class_="wide")


def section(title: str, *inside: object, name: str) -> Html:
    return tag("section", tag("h2", title), *inside, id=name)


def paragraph(*inside: object, class_: str | None = None) -> Html:
    return tag("p", *inside, class_=class_)


def _stray(letter: str) -> bool:
    return "\ud800" <= letter <= "\udfff" or letter in "\ufffe\uffff"


def _short(value: object) -> object:
    """Coordinates to a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
