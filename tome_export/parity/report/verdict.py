"""The sentence that matters, what was compared with what, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from tome_export import views
from tome_export.manifest import Versions
from tome_export.parity.report import words
from tome_export.parity.report.markup import Html, join, paragraph, table, tag
from tome_export.parity.report.numbers import cell, listed, plural, sci, unbroken
from tome_export.parity.result import Finding, ParityResult
from tome_export.parity.verify import Verification


@dataclass
class Place:
    """Everything that was found in one part of one block."""

    first: bool = False  # for some runtime, nothing comes before it in the graph
    said: list[tuple[str, Finding]] = field(default_factory=list)


def verdict(found: Verification, versions: Versions, date: str) -> Html:
    """versions: of this environment. date: of the comparison."""
    word = "Pass." if found.passed else "Fail."
    head = (
        tag("strong", word, class_="pass" if found.passed else "fail")
        if found.results or not found.passed
        else None
    )
    return tag(
        "header",
        tag("p", "Parity report", class_="about"),
        tag("h1", head, None if head is None else " ", unbroken(sentence(found))),
        _findings(found),
        _summary(found),
        _facts(found, versions, date),
    )


def sentence(found: Verification) -> str:
    """The verdict."""
    name, reference = found.bundle.path.resolve().name, words.runtime(found.against)
    if not found.results and found.passed:
        return (
            f"{name}: nothing was compared, because it holds one model, {reference}, and there is no other; "
            "its files are as they were exported."
        )
    failed = [result for result in found.results if not result.passed]
    good = [result for result in found.results if result.passed]
    if not failed:
        computes = "compute" if len(good) > 1 else "computes"
        told = f"{listed(list(map(words.who, good)))} {computes} what {reference} computes" if good else ""
        if found.findings:
            but = f"; {told}" if told else ""
            return f"{name}: {words.place(found.findings[0]).lower()} is not as it should be{but}."
        return f"{name}: {told}: {_agreement(good)}."
    does = "do" if len(failed) > 1 else "does"
    told = f"{name}: {listed(list(map(words.who, failed)))} {does} not compute what {reference} computes"
    places = list(_places(found))
    told += f"; {'first ' if len(places) > 1 else ''}wrong is {_lower(places[0])}"
    if good:
        told += f". {listed(list(map(words.who, good)))} {'agree' if len(good) > 1 else 'agrees'}"
    return told + "."


def _agreement(results: list[ParityResult]) -> str:
    decisions = sum(result.decisions for result in results)
    near = sum(result.near_ties for result in results)
    agreed = sum(block.agreed for result in results for block in result.blocks)
    forced = [(result.forced or result, result) for result in results]
    figures, worst = max(forced, key=lambda pair: pair[0].max_rel / pair[1].limits.logits)
    logits = f"logits differ by at most {sci(figures.max_rel)} of their range, where "
    logits += f"{sci(worst.limits.logits)} is allowed"
    if not decisions:
        return logits
    if not near:
        return f"all {decisions:,} merge decisions agree, and {logits}"
    hang = "hangs" if near == 1 else "hang"
    return (
        f"{agreed:,} of {decisions:,} merge decisions agree, {near:,} {hang} on rounding, and with the same "
        f"merges {logits}"
    )


def _places(found: Verification) -> dict[str, Place]:
    """What is wrong by place, first what comes first in the graph for some runtime."""
    places: dict[str, Place] = {}
    sides = [("the bundle", found.findings)]
    sides += [(words.who(result), result.findings) for result in found.results]
    depth = found.bundle.manifest.model.depth
    for who, findings in sides:
        for index, finding in enumerate(findings):
            place = places.setdefault(words.place(finding), Place())
            place.said.append((who, finding))
            place.first |= index == 0

    def order(item: tuple[str, Place]) -> tuple[bool, int]:
        finding = item[1].said[0][1]
        early = finding.part in ("preprocess", "outputs", "embed")
        return not item[1].first, finding.block if finding.block is not None else -1 if early else depth

    return dict(sorted(places.items(), key=order))


def _findings(found: Verification) -> Html | None:
    places = _places(found)
    if not places:
        return None
    items = [_finding(place, its, len(places) > 1) for place, its in places.items()]
    told = _where_it_came_in(found)
    return tag(
        "section",
        tag("h2", "What is wrong"),
        paragraph(told) if told else None,
        tag("ol", *items, class_="findings"),
        id="findings",
    )


def _finding(place: str, its: Place, several: bool) -> Html:
    mark = tag("span", "start here", class_="mark") if its.first and several else None
    lines = []
    for who, finding in its.said:
        on = (
            None
            if finding.input is None
            else join([" On ", tag("code", words.input_name(finding.input)), "."])
        )
        lines.append(tag("p", tag("strong", f"{who}: "), unbroken(finding.what), ".", on))
    cause = words.cause(its.said[0][1].part)
    usual = paragraph("Usual causes: ", cause[:1].lower() + cause[1:], class_="soft") if cause else None
    return tag("li", tag("h3", place, mark), *lines, usual, class_="first" if its.first else None)


def _where_it_came_in(found: Verification) -> str | None:
    """What follows from which runtimes fail, where the reference is the Python model."""
    failed = [result for result in found.results if not result.passed]
    if found.against != "dygraph" or not failed:
        return None
    firsts = {words.place(result.findings[0]) for result in failed if result.findings}
    formats = {result.runtime for result in failed}
    good = {result.runtime for result in found.results if result.passed}
    if len(formats) > 1 and not good and len(firsts) == 1:
        return (
            "Every runtime is wrong first in the same place, so look at what they share: the traced graph "
            "and the weights that were saved with it, before any conversion."
        )
    if formats == {"onnx"} and "paddle" in good:
        return (
            "Paddle Inference agrees, so the traced graph is right, and the fault came in after it: in the "
            "conversion to ONNX, in the clean-up of the graph, in its file, or in the runtime."
        )
    return None


def _summary(found: Verification) -> Html | None:
    if not found.results:
        return None
    head = ("", "", "decisions", "agree", "near ties", "faults", "logits, same merges", "allowed")
    rows = []
    for result in found.results:
        faults = sum(block.faults for block in result.blocks)
        good = tag("td", "pass" if result.passed else "fail", class_="pass" if result.passed else "over")
        forced = (
            tag("td", "not compared", class_="n")
            if result.forced is None
            else cell(result.forced.max_rel, over=result.limits.logits)
        )
        agreed = sum(block.agreed for block in result.blocks)
        counts = [f"{count:,}" for count in (result.decisions, agreed, result.near_ties)]
        counts = [*counts, cell(faults, f"{faults:,}", over=0)] if result.decisions else ["–"] * 4
        rows.append((words.who(result), good, *counts, forced, cell(result.limits.logits)))
    return table(head, rows, right=range(2, 8))


def _facts(found: Verification, versions: Versions, date: str) -> Html:
    bundle, manifest = found.bundle, found.bundle.manifest
    compared = [f"{words.who(result)}{_version(result.runtime, versions)}" for result in found.results]
    reference = f"{words.runtime(found.against)}{_version(found.against, versions)}"
    on = f"{plural(len(found.inputs), 'input')}, one at a time"
    if batches := [size for result in found.results[:1] for size in result.batch_sizes if size > 1]:
        on += f" and in batches of {listed(list(map(str, batches)))}"
    facts = [
        ("Bundle", bundle.path.resolve().name),
        ("Model", views.headline(manifest)),
        ("Weights", views.weights(manifest)),
        ("Exported", _date(manifest.created)),
        *([("Compared", listed(compared)), ("with", reference), ("on", on)] if compared else []),
        ("Checked", _date(date)),
    ]
    return tag("dl", *(part for key, value in facts for part in (tag("dt", key), tag("dd", value))))


def _version(runtime: str, versions: Versions) -> str:
    version = getattr(versions, words.ENGINES.get(runtime, ""), None)
    return f" ({'Paddle ' if runtime == 'dygraph' else ''}{version})" if version else ""


def _date(iso: str) -> str:
    """ "2025-01-31 12:00 UTC"; the manifest checks that it is UTC."""
    return f"{iso[:10]} {iso[11:16]} UTC"


def _lower(place: str) -> str:
    return place[:1].lower() + place[1:]
