"""`tome-export lint DIR`"""

from __future__ import annotations

from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session

Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="Where it should run; several, or a,b.", show_default="all of them"),
]


def lint(
    folder: Folder,
    target: Targets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print for a program to read.")] = False,
    debug: Debug = False,
) -> None:
    """Check whether a bundle will run on TensorRT, ONNX Runtime, OpenVINO and Paddle's TensorRT."""
    with session(debug) as opened:
        from tome_export.bundle import Bundle
        from tome_export.lint import lint_bundle
        from tome_export.lint.report import as_text, to_json

        report = lint_bundle(Bundle.open(folder), target)
        print(to_json(report) if as_json else as_text(report, folder), file=opened.stdout)
    if len(report.clean) < len(report.verdicts):
        raise typer.Exit(1)
