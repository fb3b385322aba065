"""`tome-export verify DIR`"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tome_export.commands.session import Debug, Folder, session
from tome_export.errors import RequestError

if TYPE_CHECKING:
    from tome_export.parity.verify import Verification

_TITLES = {"hashes": "hash the files", "model": "build the Python model", "report": "draw the report"}


def verify(
    folder: Folder,
    against: Annotated[
        str | None,
        typer.Option(
            help="What is right: dygraph, paddle or onnx.",
            show_default="dygraph if it can be built again, else onnx",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="The file the bundle was made of, to build dygraph again.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures to compare on, instead of samples.", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option(help="Synthetic inputs: pictures, noise, ties, extremes.")] = 10,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,3",
    runtimes: Annotated[
        str | None,
        typer.Option(
            help="What to judge, such as paddle,onnx,openvino or openvino:bf16.",
            show_default="the formats in the bundle",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Of what is judged: cpu, cuda or cuda:N.")] = "cpu",
    html: Annotated[Path | None, typer.Option(help="Write a report of one page.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print for a program to read.")] = False,
    debug: Debug = False,
) -> None:
    """Prove a bundle again: hashes, merge decisions, every part of every block, logits."""
    with session(debug) as opened:
        from tome_export import views
        from tome_export.console import ConsoleSteps, size
        from tome_export.parity.verify import verify_bundle

        if html is not None:
            from tome_export.parity.html import check_target, write_report

            check_target(html)
        # With --json the standard output is the result's alone.
        steps = ConsoleSteps(opened.stderr if as_json else opened.stdout, _TITLES)
        found = verify_bundle(
            folder,
            against=against,
            weights=weights,
            images=images,
            samples=samples,
            batch_sizes=_batch_sizes(batch),
            runtimes=None if runtimes is None else runtimes.split(","),
            device=device,
            steps=steps,
            rebuild=_rebuild,
        )
        show = lambda text: print(text, file=opened.stdout)  # noqa: E731
        if html is not None:
            with steps("report"):
                write_report(found, html)
        if as_json:
            show(found.to_json())
            found.require()
            return
        _show(found, folder, show)
        if html is not None:
            show(f"\nreport\n  {views.shown_path(html)}  {size(html.stat().st_size)}")
        found.require()
        if html is None and found.results:
            show(f"\nnext\n  tome-export verify {views.shown_path(folder)} --html report.html")


def _show(found: Verification, folder: Path, show: Callable[[str], None]) -> None:
    """What was compared and what is wrong, or that nothing is."""
    from tome_export import views

    if found.results:
        show(f"\n{views.parity(found.results)}")
    else:
        show("\n  one model: nothing to compare it with")
    if not found.passed:
        show(f"\nwhat is wrong\n{views.findings(found.results, found.findings)}")
    elif found.results:
        show(f"\n{views.shown_path(folder)} is whole, and computes what {found.against} computes")
    else:
        show(f"\n{views.shown_path(folder)} is whole")


def _batch_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--batch {text!r} is not a list of batch sizes such as 1,3,8") from None


def _rebuild(manifest, weights: str | None):
    from tome_export.parity.rebuild import rebuild

    return rebuild(manifest, weights)
