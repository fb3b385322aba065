"""What a verification found, as one HTML page that needs nothing else: no script, no request, no file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tome_export.errors import RequestError
from tome_export.manifest import Versions, utc_now
from tome_export.parity.report import words
from tome_export.parity.report.agreement import agreement
from tome_export.parity.report.environment import environment
from tome_export.parity.report.figures import figures
from tome_export.parity.report.groups import groups
from tome_export.parity.report.markup import Html, section, tag
from tome_export.parity.report.schedule import schedule
from tome_export.parity.report.style import css
from tome_export.parity.report.verdict import verdict
from tome_export.parity.verify import Verification

SUFFIXES = (".html", ".htm")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def check_target(path: Path) -> None:
    """Raises RequestError for a file that could not be written, before any long work."""
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"{path}: a report's name ends in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise RequestError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise RequestError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.resolve().parent, os.W_OK):
        raise RequestError(f"{path}: the folder {path.parent} cannot be written to")


def write_report(found: Verification, path: Path) -> int:
    """Write the page; a file that exists is replaced, at once or not at all. Returns its size in bytes.

    Raises RequestError.
    """
    check_target(path)
    content = page(found).encode("utf-8")
    target = path.resolve()  # what a link points at is replaced, not the link
    partial = target.with_name(f".{target.name[:200]}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return len(content)


def page(found: Verification, versions: Versions | None = None, date: str | None = None) -> str:
    """The page's text. versions, date: of this check; None for what is installed, and now (ISO 8601, UTC)."""
    versions = versions or Versions.installed()
    title = f"{found.bundle.path.resolve().name}: parity {_word(found)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="generator", content=f"tome-export {versions.tome_export}"),
        tag("title", title),
        tag("style", Html(css())),
    )
    body = tag(
        "main",
        verdict(found, versions, date or utc_now()),
        schedule(found.bundle.manifest),
        agreement(found),
        groups(found),
        figures(found),
        environment(found, versions),
        _glossary(),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _word(found: Verification) -> str:
    if not found.passed:
        return "failed"
    return "passed" if found.results else "not compared"


def _glossary() -> Html:
    terms = [part for term, told in words.GLOSSARY.items() for part in (tag("dt", term), tag("dd", told))]
    return section("Glossary", tag("dl", *terms), name="glossary")
