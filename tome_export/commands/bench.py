"""`tome-export bench DIR`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session
from tome_export.errors import RequestError

_TITLES = {
    "memory": "measure the memory, each in its own process",
    "open": "open the models",
    "merging": "profile the merging",
    "download": "download the weights",
    "model": "build the model to compare with",
    "trace": "  trace and save for Paddle Inference",
    "onnx": "  convert to ONNX",
    "parity": "  prove that the runtimes agree with it",
    "write": "  keep it for the next time",
}


def bench_command(
    folder: Folder,
    runtime: Annotated[
        str, typer.Option(help="Such as onnx,paddle,openvino.", show_default="all there are")
    ] = "",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
    against: Annotated[
        str | None,
        typer.Option(
            help="r0: the same weights unmerged; or another bundle, or an .onnx file.",
            show_default="the first runtime",
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="Speed against r, on one runtime: 0,4,8,16,16:-1; the first is compared with.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Such as fp32,bf16.")] = "fp32",
    weights: Annotated[
        str | None,
        typer.Option(help="The file the bundle was made of, to export it again.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="On the CPU.", show_default="all")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Turns of each, for each batch size.", show_default="15")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Time for each batch size, instead.", show_default=False)
    ] = None,
    memory: Annotated[bool, typer.Option(help="Measure memory, in a process for each.")] = True,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="File to write every figure to.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to draw, such as speed.png.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure a bundle's speed: runtimes and a baseline take turns."""
    with session(debug) as opened:
        from tome_export import views
        from tome_export.bench import bench
        from tome_export.benching.plot import check_plot, draw
        from tome_export.benching.report import as_text
        from tome_export.bundle import Bundle
        from tome_export.console import ConsoleSteps

        if plot is not None:
            check_plot(plot)
        for path in filter(None, (as_json, plot)):
            if not path.resolve().parent.is_dir():
                raise RequestError(f"{path}: there is no folder {path.parent}")
        if sweep is not None and against is not None:
            raise RequestError("--sweep compares with its first r; leave out --against")
        show = lambda text="": print(text, file=opened.stdout, flush=True)  # noqa: E731
        show(f"{views.headline(Bundle.open(folder).manifest)}\n")
        options = {
            "runtimes": runtime.split(",") if runtime else None,
            "precisions": precision.split(","),
            "batches": _batches(batch),
            "device": device,
            "threads": threads,
            "rounds": rounds,
            "seconds": seconds,
            "memory": memory,
            "steps": ConsoleSteps(opened.stdout, _TITLES),
            "make_twin": lambda bundle, r, steps: _twin(bundle, r, weights, steps),
        }
        if sweep is not None:
            from tome_export.benching.sweep import bench_sweep

            found = bench_sweep(folder, sweep, **options)
        else:
            found = bench(folder, against=against, **options)
        show(f"\n{as_text(found)}")
        if as_json is not None:
            as_json.write_text(found.to_json() + "\n", encoding="utf-8")
            show(f"\n{as_json}")
        if plot is not None:
            draw(found, plot)
            show(f"\n{plot}")
        if against is None and sweep is None:
            show(f"\nnext\n  tome-export bench {views.shown_path(folder)} --against r0")


def _batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"--batch {text!r} is not a list of batch sizes such as 1,8") from None


def _twin(bundle, r, weights: str | None, steps):
    from tome_export.benching.twin import twin

    return twin(bundle, r, weights, steps)
