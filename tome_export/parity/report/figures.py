"""The figures: logits, what is allowed and why, and the inputs."""

from __future__ import annotations

from collections.abc import Sequence

from tome_export.parity.limits import UNIT_ROUNDOFF
from tome_export.parity.report import words
from tome_export.parity.report.markup import Html, paragraph, section, table, tag
from tome_export.parity.report.numbers import broken, cell, decibels, plural, share
from tome_export.parity.result import Figures, ParityResult
from tome_export.parity.samples import KINDS
from tome_export.parity.verify import Verification

_SHOWN_INPUTS = 24
_HEAD = (
    "",
    "logits",
    "max abs",
    "mean abs",
    "over range",
    "allowed",
    "least cosine",
    "PSNR",
    "top-1",
    "top-5",
)


def figures(found: Verification) -> Html | None:
    if not found.results:
        return None
    return section(
        "Figures",
        _logits(found.results),
        tag("h3", "Limits"),
        _limits(found.results),
        tag("h3", "Inputs"),
        *_inputs(found),
        name="figures",
    )


def _logits(results: Sequence[ParityResult]) -> Html:
    rows = []
    for result in results:
        free = Figures(**{name: getattr(result, name) for name in Figures.__dataclass_fields__})
        rows.append(_row(words.who(result), "as they come", free, None))
        if result.forced is None:
            rows.append(
                ("", "same merges", tag("td", "not compared: no valid decisions to follow", colspan=8))
            )
        else:
            rows.append(_row("", "same merges", result.forced, result.limits.logits))
    told = (
        "Over range: the largest difference over the range of the reference's logits. PSNR: range over root"
        " mean "
    )
    told += (
        "square difference. Top-1, top-5: same best class, overlap of the five best. Point at a figure for "
        "all digits."
    )
    return Html(table(_HEAD, rows, right=range(2, 10)) + paragraph(told, class_="soft"))


def _row(who: str, which: str, its: Figures, limit: float | None) -> tuple:
    lost = broken(its.max_abs)
    return (
        who,
        which,
        cell(its.max_abs),
        cell(its.mean_abs),
        cell(its.max_rel, over=limit),
        tag("td", "", class_="n") if limit is None else cell(limit),
        cell(its.cosine_min, "–" if lost else f"{its.cosine_min:.9f}"),
        cell(its.psnr, "–" if lost else decibels(its.psnr)),
        cell(its.top1_agreement, share(its.top1_agreement)),
        cell(its.top5_agreement, share(its.top5_agreement)),
    )


def _limits(results: Sequence[ParityResult]) -> Html:
    of = {}  # each precision's limits, and the results they apply to
    for result in results:
        of.setdefault((result.precision, result.limits), []).append(result)
    parts = []
    for (precision, limits), its in of.items():
        unit = UNIT_ROUNDOFF.get(precision)
        worst = {
            "stage": [error for result in its for block in result.blocks for error in block.errors.values()],
            "similarity": [
                block.noise for result in its for block in result.blocks if block.noise is not None
            ],
            "logits": [result.forced.max_rel for result in its if result.forced is not None],
        }
        rows = []
        for name, (what, why) in words.LIMITS.items():
            allowed = getattr(limits, name)
            found = cell(max(worst[name]), over=allowed) if worst.get(name) else tag("td", "–", class_="n")
            counted = name == "near_ties"
            units = f"{allowed / unit:,.0f} u" if unit and not counted else ""
            limit = cell(allowed, share(allowed) if counted else None)
            reason = tag("td", why, class_="why soft")
            rows.append((name.replace("_", " "), what, limit, units, found, reason))
        head = ("", "bounds", "allowed", "", "largest found", "why")
        caption = f"{precision}, u = {unit:.1e}, the unit roundoff" if unit else precision
        parts.append(table(head, rows, right=(2, 3, 4), caption=caption))
    return Html("".join(parts))


def _inputs(found: Verification) -> list[Html]:
    names = [words.input_name(name) for name in found.inputs]
    kinds = [name.partition(":")[0] for name in found.inputs]
    made = sum(kind in KINDS for kind in kinds)
    files = len(names) - made
    count = " and ".join(
        filter(None, [made and plural(made, "synthetic input"), files and plural(files, "picture")])
    )
    sizes = ", ".join(map(str, found.results[0].batch_sizes))
    about = f"{count}; batch sizes {sizes}. In a batch, every row must be what its input gives alone."
    if made:
        about += (
            " photo: textures with the spectrum of photographs and hard edges; noise: white noise; half: "
            "two flat colours, full of equal similarities; flat: one colour; extreme: black and white far "
            "beyond any picture."
        )
    first = tag("p", ", ".join(names[:_SHOWN_INPUTS]), class_="soft")
    rest = names[_SHOWN_INPUTS:]
    more = (
        tag("details", tag("summary", f"and {len(rest):,} more"), tag("p", ", ".join(rest), class_="soft"))
        if rest
        else None
    )
    return [paragraph(about), first, *([more] if more else [])]
