"""Pictures in rows on a white page, each with a few words beneath."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from unicodedata import combining, normalize

from PIL import Image, ImageDraw, ImageFont

_PAGE, _INK, _PALE = (255, 255, 255), (30, 30, 34), (115, 115, 122)
_SMALLEST_TEXT = 12  # pixels


@dataclass(frozen=True)
class Panel:
    """A picture and what is written beneath it: one line in black, then one in grey."""

    picture: Image.Image
    caption: str
    note: str = ""


def sheet(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """The rows beneath one another, RGB. Pictures keep their pixels; text and margins follow their size."""
    laid = [_Row(row) for row in rows]
    margin = max(row.gap for row in laid)
    width = max(row.width for row in laid) + 2 * margin
    height = sum(row.height for row in laid) + sum(row.gap for row in laid[1:]) + 2 * margin
    page = Image.new("RGB", (width, height), _PAGE)
    top = margin
    for row in laid:
        row.draw(page, (width - row.width) // 2, top)
        top += row.height + row.gap
    return page


class _Row:
    """Where things are in a row of panels."""

    def __init__(self, panels: Sequence[Panel]) -> None:
        self.panels = panels
        sizes = [panel.picture.size for panel in panels]
        area = max(width * height for width, height in sizes)
        # A strip of many is looked at from further away.
        share = 26 if len(panels) <= 2 else 18
        self.text = max(_SMALLEST_TEXT, round(math.sqrt(area) / share))
        self.gap = self.text
        self.line = round(1.35 * self.text)
        lines = max(1 + bool(panel.note) for panel in panels)
        self.pictures = max(height for _, height in sizes)
        self.width = sum(width for width, _ in sizes) + self.gap * (len(panels) - 1)
        self.height = self.pictures + self.text // 2 + lines * self.line

    def draw(self, page: Image.Image, left: int, top: int) -> None:
        draw = ImageDraw.Draw(page)
        for panel in self.panels:
            width = panel.picture.width
            page.paste(panel.picture, (left, top))
            # Text hangs from the line of its ascenders, so that lines keep their distance.
            place = left, top + self.pictures + self.text // 2
            for text, ink in ((panel.caption, _INK), (panel.note, _PALE)):
                if text:
                    fitted, font = _fitted(text, self.text, width)
                    draw.text(place, fitted, ink, font, anchor="la")
                place = place[0], place[1] + self.line
            left += width + self.gap


def plain(text: str) -> str:
    """The text in letters that Pillow's own font has: accents dropped, a question mark for the rest."""
    letters = (letter for letter in normalize("NFKD", text) if not combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def _fitted(text: str, size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text in a font in which it is at most `width` pixels wide: smaller, and if need be shorter."""
    for smaller in range(size, max(_SMALLEST_TEXT, round(0.7 * size)) - 1, -1):
        font = _font(smaller)
        if font.getlength(text) <= width:
            return text, font
    shorter = text
    while shorter and font.getlength(shorter + "...") > width:
        shorter = shorter[:-1]
    return shorter.rstrip() + "...", font


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
