"""`tome-export eval DIR --data FOLDER`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session
from tome_export.errors import RequestError


def evaluate_command(
    folder: Folder,
    data: Annotated[
        Path, typer.Option(help="Folder of class folders, or with --labels of pictures.", show_default=False)
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="List of `path label` lines; paths below --data.", show_default=False),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="DIR2", help="A second bundle, on the same pictures.")
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            help="paddle, onnx, openvino, tensorrt or onnx-tensorrt.", show_default="the first there is"
        ),
    ] = "",
    precision: Annotated[str, typer.Option(help="Of the model in the bundle.")] = "fp32",
    compare_runtime: Annotated[str, typer.Option(help="Of DIR2.", show_default="as --runtime")] = "",
    compare_precision: Annotated[str, typer.Option(help="Of DIR2.", show_default="as --precision")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Of the model on the CPU.", show_default="all")] = None,
    batch: Annotated[int, typer.Option(help="Pictures at a time.")] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that read pictures; 0: none.", show_default="one per processor, at most 16"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Evaluate this many, spread evenly.", show_default="all")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="CSV file to write: a row per picture.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure a bundle's accuracy and speed on labelled pictures."""
    result = None
    with session(debug) as opened:
        from tome_export.evaluate import Contender, evaluate
        from tome_export.evaluation import report
        from tome_export.evaluation.follow import Follower
        from tome_export.evaluation.progress import ProgressView
        from tome_export.evaluation.table import PredictionsFile

        if compare is None and (compare_runtime or compare_precision):
            raise RequestError("--compare-runtime and --compare-precision go with --compare DIR2")
        contenders = [Contender.open(folder, runtime, precision)]
        if compare is not None:
            second = compare_runtime or contenders[0].runtime
            contenders.append(Contender.open(compare, second, compare_precision or precision))
        # With --json the standard output is the result's alone.
        view = ProgressView(opened.stderr if as_json else opened.stdout, lines=not as_json)
        file = PredictionsFile(predictions, len(contenders)) if predictions else None
        with Follower(view, file) as follower:
            result = evaluate(
                contenders,
                data,
                labels,
                device=device,
                threads=threads,
                batch=batch,
                workers=workers,
                limit=limit,
                watch=follower,
            )
        if as_json:
            print(report.as_json(result), file=opened.stdout)
        elif result.scores:
            print(report.as_text(result, contenders), file=opened.stdout)
    if result is not None and result.interrupted:
        done = result.evaluated + len(result.unreadable)
        print(f"error: interrupted after {done} of {result.images} images", file=sys.stderr)
        raise typer.Exit(130)
