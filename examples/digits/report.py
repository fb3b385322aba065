"""The comparison as a table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from examples.digits.compare import Row


def markdown(rows: Sequence[Row]) -> str:
    """A table: accuracy of each model at each r, and how many predictions are dygraph's, by runtime."""
    places = list(dict.fromkeys(score.where for row in rows for score in row.scores))
    header = ["Trained with", "Run with", "Tokens", *places]
    lines = [header, ["---"] * 3 + ["---:"] * len(places)]
    for row in rows:
        scores = {score.where: score for score in row.scores}
        cells = [f"r = {row.trained_r}", f"r = {row.r}", f"{row.tokens[0]} -> {row.tokens[-1]}"]
        for place in places:
            score = scores.get(place)
            if score is None:
                cells.append("")
            elif place == places[0]:
                cells.append(f"{score.accuracy:.2%}")
            else:
                cells.append(f"{score.accuracy:.2%}, {score.same} of {score.total} the same")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against r, a line for each trained model, a marker for each runtime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    for number, trained in enumerate(dict.fromkeys(row.trained_r for row in rows)):
        chosen = [row for row in rows if row.trained_r == trained]
        places = [str(row.r) for row in chosen]
        color = f"C{number}"
        name = "trained without merging" if trained == 0 else f"trained with r = {trained}"
        axes.plot(places, [100 * row.scores[0].accuracy for row in chosen], color=color, label=name)
        for marker, where in zip("ox+sd^v", [score.where for score in chosen[0].scores[1:]], strict=False):
            values = [100 * s.accuracy for row in chosen for s in row.scores if s.where == where]
            axes.plot(
                places, values, marker, color=color, markerfacecolor="none", markersize=8, label=f"  {where}"
            )
    axes.set_xlabel("tokens merged in each of six blocks (r)")
    axes.set_ylabel("held-out digits right, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
