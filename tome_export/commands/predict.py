"""`tome-export predict DIR PHOTO...`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session


def predict(
    folder: Folder,
    photo: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    runtime: Annotated[
        str,
        typer.Option(
            help="paddle, onnx, openvino, tensorrt or onnx-tensorrt.", show_default="the first there is"
        ),
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 5,
    precision: Annotated[str, typer.Option(help="Of the model to run.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    debug: Debug = False,
) -> None:
    """Classify image files with an exported bundle."""
    with session(debug) as opened:
        from tome_export.console import table
        from tome_export.predict import predict_files

        name, predictions = predict_files(folder, photo, runtime, top, device, precision)
        for path, classes in zip(photo, predictions, strict=True):
            rows = [(entry.label, f"{entry.probability:.4f}") for entry in classes]
            print(f"{path} ({name})\n{table(rows, right=[1])}", file=opened.stdout)
