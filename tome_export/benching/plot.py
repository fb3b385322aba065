"""A benchmark as a picture, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path

from tome_export.benching.result import Benchmark
from tome_export.errors import MissingExtraError, RequestError

_FORMATS = (".png", ".svg", ".pdf", ".jpg", ".webp")


def check_plot(path: Path) -> None:
    """Refuse, before anything is measured, what `draw` could not draw. Raises RequestError,
    MissingExtraError."""
    if path.suffix.lower() not in _FORMATS:
        raise RequestError(f"{path}: cannot draw that format; name it {', '.join(_FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            'the matplotlib package is not installed: pip install "tome-export[plot]"'
        ) from None


def draw(found: Benchmark, path: Path) -> None:
    """Images per second of every entry, a panel for each batch size, with how many times faster it is and the
    quartiles of that. Raises RequestError, MissingExtraError."""
    check_plot(path)
    from matplotlib.figure import Figure

    batches = list(map(int, found.rounds))
    figure = Figure(figsize=(8, 0.9 + len(batches) * (0.7 + 0.35 * len(found.entries))), layout="constrained")
    panels = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
    for panel, batch in zip(panels, batches, strict=True):
        timed = [each for each in found.timed if each.batch == batch]
        names = [found.entries[each.entry].name for each in timed]
        colours = [f"C{int(found.entries[each.entry].against is None)}" for each in timed]
        bars = panel.barh(range(len(timed)), [each.images_per_second for each in timed], color=colours)
        panel.bar_label(bars, ["" if each.ratio is None else f" {each.ratio}" for each in timed], padding=2)
        panel.set_yticks(range(len(timed)), names)
        panel.invert_yaxis()
        panel.margins(x=0.3)
        panel.set_title(f"batch {batch}", loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("images per second")
    figure.savefig(path, dpi=120)
