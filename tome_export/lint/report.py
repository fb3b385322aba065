"""A report as text: verdicts first, then the findings, the same one over many nodes as one line; or as
JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tome_export.console import table
from tome_export.lint.findings import Group, Report, group
from tome_export.views import shown_path


def as_text(report: Report, folder: str | Path) -> str:
    """What `tome-export lint` prints."""
    rows: list[tuple[object, ...]] = [("target", "verdict", "operators", "red", "yellow")]
    rows += [(each.target, each.word, each.operators, each.red, each.yellow) for each in report.verdicts]
    parts = [table(rows, right=[2, 3, 4])]
    notes = [f"  {each.target}: {each.note}" for each in report.verdicts if each.note]
    if notes:
        parts.append("note\n" + "\n".join(notes))
    for verdict in report.verdicts:
        found = [finding for finding in report.findings if finding.target == verdict.target]
        if found:
            parts.append(f"{verdict.target}\n" + "\n".join(map(_shown, group(found))))
    parts.append("next\n" + "\n".join(f"  {command}" for command in _next(report, folder)))
    return "\n\n".join(parts)


def to_json(report: Report) -> str:
    """`{"verdicts": [...], "findings": [...]}`, every finding by itself; keys as in `findings.py`."""
    verdicts = [asdict(each) | {"verdict": each.word} for each in report.verdicts]
    return json.dumps(
        {"verdicts": verdicts, "findings": [asdict(each) for each in report.findings]}, indent=2
    )


def summary(report: Report) -> str:
    """The red findings in one line, for an error message."""
    reds = [entry for entry in group(report.findings) if entry.example.severity == "red"]
    first = reds[0].example
    more = f"; {len(reds) - 1} more kinds of finding" if len(reds) > 1 else ""
    return f"{first.target}: {_where(reds[0])}: {first.problem} ({first.advice}){more}"


def _shown(entry: Group) -> str:
    found = entry.example
    return (
        f"  {found.severity:<6}  {_where(entry)}: {found.problem}\n"
        f"          do      {found.advice}\n          source  {found.source}"
    )


def _where(entry: Group) -> str:
    found = entry.example
    if not found.node:
        return found.operator
    if entry.count == 1:
        return f"{found.operator} {found.node}"
    return f"{entry.count} x {found.operator}, such as {found.node}"


def _next(report: Report, folder: str | Path) -> list[str]:
    where = shown_path(folder)
    if len(report.clean) == len(report.verdicts):
        return [f"tome-export verify {where}"]
    commands = [f"tome-export lint {where} --json"]
    if report.clean:
        commands.insert(0, f"tome-export lint {where} --target {','.join(report.clean)}")
    return commands
