"""`tome-export visualize DIR PHOTO... --out PICTURE`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session


def visualize(
    folder: Folder,
    photo: Annotated[list[Path], typer.Argument(help="Image files; a row for each.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .jpg, .webp or .tif.")] = Path(
        "merged.png"
    ),
    runtime: Annotated[
        str,
        typer.Option(
            help="paddle, onnx, openvino, tensorrt or onnx-tensorrt.", show_default="the first there is"
        ),
    ] = "",
    precision: Annotated[str, typer.Option(help="Of the model to run.")] = "fp32",
    blocks: Annotated[
        bool, typer.Option("--blocks", help="A panel after each merging block, at most six of them.")
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(min=16, help="Pixels along a photo's long side.", show_default="its own; --blocks: 640"),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    debug: Debug = False,
) -> None:
    """Draw which tokens an exported model merges in image files."""
    with session(debug) as opened:
        from tome_core.visualize import count_groups
        from tome_export.console import size as bytes_of
        from tome_export.console import table
        from tome_export.visualize import visualize_files

        drawn = visualize_files(folder, photo, out, runtime, precision, device, blocks, size)
        rows = []
        for path, seen in zip(photo, drawn.seen, strict=True):
            sources = seen.sources[-1][1]
            top = (seen.top.label, f"{seen.top.probability:.4f}") if seen.top else ("", "")
            rows.append((path, f"{len(sources)} -> {count_groups(sources)} tokens", *top))
        print(f"{drawn.runtime}\n{table(rows, right=[3])}", file=opened.stdout)
        width, height = drawn.size
        print(f"{out}  {width} x {height} pixels, {bytes_of(out.stat().st_size)}", file=opened.stdout)
