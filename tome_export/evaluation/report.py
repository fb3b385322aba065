"""An evaluation as text, and as what `--json` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from tome_export import views
from tome_export.console import table
from tome_export.evaluate import Contender, Evaluation, Score

_NAMED = 5  # unreadable pictures named on the terminal


def as_json(result: Evaluation) -> str:
    """Everything but the answers picture by picture, which `--predictions` has."""
    fields = {name: value for name, value in vars(result).items() if name not in ("dataset", "outcomes")}
    fields["unreadable"] = [{"path": path, "error": reason} for path, reason in result.unreadable]
    fields["scores"] = [asdict(score) for score in result.scores]
    fields["comparison"] = asdict(result.comparison) if result.comparison else None
    return json.dumps(fields, indent=2)


def as_text(result: Evaluation, contenders: Sequence[Contender]) -> str:
    """What the command prints at its end."""
    headlines = [views.headline(each.bundle.manifest) for each in contenders]
    parts = ["\n".join(headlines), _scores(result.scores), _counts(result)]
    if result.comparison:
        parts.insert(2, _comparison(result))
    for score in result.scores:
        parts += [f"note: {note}" for note in score.notes]
        if score.not_numbers:
            parts.append(
                f"note: {score.not_numbers} answers of {score.bundle} are not numbers; counted as wrong"
            )
    if result.unreadable:
        parts.append(_unreadable(result))
    return "\n\n".join(parts)


def _scores(scores: tuple[Score, ...]) -> str:
    heading = [f"{score.bundle}" for score in scores]
    engines = [f"{score.runtime} {score.version}, {score.precision}, {score.device}" for score in scores]
    margins = [
        f"{100 * score.top1_interval[0]:.2f} to {100 * score.top1_interval[1]:.2f} %" for score in scores
    ]
    rows = [
        ["", *heading],
        ["runtime", *engines],
        ["top-1", *(f"{score.top1:.2%}".replace("%", " %") for score in scores)],
        ["  95 % confidence", *margins],
        ["top-5", *(f"{score.top5:.2%}".replace("%", " %") for score in scores)],
        ["speed of the model", *(f"{score.images_per_second:.1f} images/s" for score in scores)],
    ]
    return table(rows)


def _comparison(result: Evaluation) -> str:
    compared = result.comparison
    first, second = result.scores
    verdict = "the difference is more than chance" if compared.p_value < 0.05 else "may be chance"
    rows = [
        ("same answer", f"{100 * compared.agreement:.2f} %"),
        ("second minus first", f"{100 * (second.top1 - first.top1):+.2f} points of top-1"),
        ("right: both, neither", f"{compared.both}, {compared.neither}"),
        ("right: only first, only second", f"{compared.only_first}, {compared.only_second}"),
        ("McNemar's exact test", f"p = {compared.p_value:.3g}, {verdict}"),
    ]
    return table(rows)


def _counts(result: Evaluation) -> str:
    images = f"{result.evaluated} of {result.images}"
    if result.unreadable:
        images += f", {len(result.unreadable)} could not be read"
    if result.interrupted:
        images += ", interrupted"
    rows = [
        ("images", images),
        ("classes", result.classes),
        ("speed of everything", f"{result.images_per_second:.1f} images/s"),
        ("model waiting for images", f"{100 * result.waiting:.1f} %"),
    ]
    if result.ignored_files:
        rows.insert(1, ("other files, ignored", str(result.ignored_files)))
    return table(rows)


def _unreadable(result: Evaluation) -> str:
    named = [f"  {path}: {reason}" for path, reason in result.unreadable[:_NAMED]]
    if (more := len(result.unreadable) - _NAMED) > 0:
        named.append(f"  and {more} more; --json and --predictions name them all")
    return "\n".join(["could not be read", *named])
