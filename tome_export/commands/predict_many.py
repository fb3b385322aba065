"""`tome-export predict-many DIR FOLDER OUT.parquet`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session


def predict_many_command(
    folder: Folder,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Pictures, at any depth.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="A row a picture.", show_default=False)],
    runtime: Annotated[
        str,
        typer.Option(
            help="paddle, onnx, openvino, tensorrt or onnx-tensorrt.", show_default="the first there is"
        ),
    ] = "",
    precision: Annotated[str, typer.Option(help="Of the model to run.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    top: Annotated[int, typer.Option(help="Classes a picture.")] = 5,
    batch: Annotated[int, typer.Option(help="Pictures at a time.")] = 32,
    actors: Annotated[
        int | None,
        typer.Option(help="Processes that hold a model.", show_default="1; one per machine or GPU"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of each model on the CPU.", show_default="all, divided")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that read pictures.", show_default="one per processor, at most 16"),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(
            help="Pictures in a part, which a kill loses at most per worker.", show_default="up to 2000"
        ),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_ADDRESS", help="Of a Ray cluster that runs.", show_default="this machine alone"
        ),
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT.parquet, and parts of another request.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Classify a folder of pictures into a parquet file; killed, the same command goes on."""
    result = None
    with session(debug) as opened:
        from tome_export.evaluation.progress import ProgressView
        from tome_export.offline import report
        from tome_export.predict_many import Follow, predict_many

        view = ProgressView(opened.stdout, title="predict")

        class Shown(Follow):
            first = True

            def started(self, total: int, before: int) -> None:
                if before:
                    print(f"  goes on after {before} of {total} images", file=opened.stdout, flush=True)
                view.start(total, before)

            def advanced(self, done: int) -> None:
                if self.first:  # until then Ray and the models were starting
                    self.first = False
                    view.measure_from(done)
                view.advance(done)

        try:
            result = predict_many(
                folder,
                source,
                out,
                runtime=runtime,
                precision=precision,
                device=device,
                top=top,
                batch=batch,
                actors=actors,
                threads=threads,
                workers=workers,
                shard=shard,
                address=address,
                overwrite=overwrite,
                follow=Shown(),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on from what is finished") from None
        finally:
            view.stop()
        if not result.interrupted:
            print(report.as_text(result, folder), file=opened.stdout)
    if result is not None and result.interrupted:
        print(
            f"error: interrupted after {result.done} of {result.images} images; the same command goes on",
            file=sys.stderr,
        )
        raise typer.Exit(130)
