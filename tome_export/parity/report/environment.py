"""What it was made and checked with, the files, and the command that does it again."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from tome_export.manifest import Versions
from tome_export.parity.report.markup import Html, section, table, tag
from tome_export.parity.samples import KINDS
from tome_export.parity.verify import Verification

_DIGITS = 16


def environment(found: Verification, versions: Versions) -> Html:
    """versions: of this environment."""
    made = found.bundle.manifest.versions
    rows = []
    for field in fields(Versions):
        before, now = (getattr(each, field.name) or "not there" for each in (made, versions))
        rows.append((field.name.replace("_", "-"), before, now))
    artifacts = [
        (path, artifact.format, artifact.precision, tag("td", tag("code", digest[:_DIGITS]), title=digest))
        for artifact in found.bundle.manifest.artifacts
        for path, digest in (artifact.files | artifact.debug).items()
    ]
    return section(
        "Reproduce",
        tag("pre", tag("code", command(found))),
        tag("h3", "Environment"),
        table(("", "exported with", "checked with"), rows),
        tag("h3", "Files"),
        table(("file", "format", "precision", "SHA-256 begins"), artifacts),
        name="reproduce",
    )


def command(found: Verification) -> str:
    """The command line that compares the same artifacts on the same inputs again."""
    origin = found.bundle.manifest.weights
    words = ["tome-export", "verify", str(found.bundle.path), "--against", found.against]
    if found.against == "dygraph" and origin.seed is None and not origin.source.startswith(("hf:", "https:")):
        words += ["--weights", origin.source]
    synthetic = all(name.partition(":")[0] in KINDS for name in found.inputs)
    if synthetic:
        words += ["--samples", str(len(found.inputs))]
    else:
        words += ["--images", str(Path(found.inputs[0]).parent)]
    if found.results:
        words += ["--batch", ",".join(map(str, found.results[0].batch_sizes))]
    return shlex.join(words)
