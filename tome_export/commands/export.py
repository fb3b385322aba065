"""`tome-export --model NAME --out DIR`, the default command"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tome_core.errors import ScheduleError
from tome_export.commands.session import Debug, session
from tome_export.errors import RequestError
from tome_export.quiet import Quiet

TITLES = {
    "download": "download the weights",
    "model": "build the model",
    "trace": "trace and save for Paddle Inference",
    "onnx": "convert to ONNX",
    "int8": "quantise the ONNX model",
    "fp16": "write the ONNX model in float16",
    "lint": "check the targets",
    "parity": "prove that the runtimes agree with it",
    "accuracy": "compare with fp32",
    "accuracy, blocks": "find the blocks that cost most",
    "write": "write the bundle",
}


def export_command(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Model name; see `tome-export models`.")] = None,
    r: Annotated[str, typer.Option("--r", help="Tokens merged per block: 16, or 16,16,8,...")] = "16",
    inflect: Annotated[
        float | None,
        typer.Option(help="With a single r: change it linearly over the blocks, -1 (decreasing) to 1."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to create.", show_default=False)] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights: a file, https://..., or hf:owner/name[@revision][:file]; without, random ones.",
            show_default=False,
        ),
    ] = None,
    weights_sha256: Annotated[
        str | None,
        typer.Option(help="Their SHA-256; needed for a pickle from a URL.", show_default=False),
    ] = None,
    weights_layout: Annotated[
        str | None, typer.Option(help="Origin of the weights file.", show_default="recognised")
    ] = None,
    reset_head: Annotated[
        bool, typer.Option("--reset-head", help="New random head for another number of classes.")
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Accept NaN and infinite weights.")
    ] = False,
    preprocess: Annotated[
        str | None, typer.Option(help="Pre-processing preset.", show_default="of the weights' origin")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Classes.", show_default="the model's")] = None,
    prop_attn: Annotated[
        bool | None,
        typer.Option(
            "--prop-attn/--no-prop-attn",
            help="Proportional attention.",
            show_default="on; off for mae_*",
        ),
    ] = None,
    formats: Annotated[str, typer.Option(help="paddle, or paddle,onnx.")] = "paddle,onnx",
    opset: Annotated[int, typer.Option(help="ONNX operator set.")] = 17,
    outputs: Annotated[str, typer.Option(help="logits, or logits,sources.")] = "logits",
    labels: Annotated[
        Path | None, typer.Option(help="Class names, one a line, for `predict`.", show_default=False)
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Where it must run, see `tome-export lint`; several, or a,b.", show_default="not checked"
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="Besides fp32: int8 or fp16 adds an ONNX model, bf16 judges what runtimes make."),
    ] = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="With int8: folder of pictures to fix activation ranges on.",
            show_default="ranges found in every run",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Below fp32: folder of pictures to judge it on.",
            show_default="those of --calibration, else synthetic",
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            help="Below fp32: share of them on which it must predict what fp32 does.",
            show_default="0.99; none for random weights",
        ),
    ] = None,
    keep_float: Annotated[
        str,
        typer.Option(help="With int8, fp16: blocks to leave in float, such as 0,11.", show_default=False),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of random weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle at --out.")] = False,
    debug: Debug = False,
) -> None:
    """Export a model (the default command)."""
    if context.invoked_subcommand is not None:
        return
    if len(sys.argv) == 1:
        print(context.get_help())
        return
    with session(debug) as opened:
        from tome_export import views
        from tome_export.console import ConsoleSteps
        from tome_export.pipeline import run
        from tome_export.request import ExportRequest

        if model is None or out is None:
            missing = "--model" if model is None else "--out"
            raise RequestError(
                f"{missing} is needed, as in: tome-export --model vit_b16 --r 16 --out ./infer"
            )
        request = ExportRequest(
            model,
            r=_parse_r(r, inflect),
            weights=weights,
            weights_sha256=weights_sha256,
            weights_layout=weights_layout,
            reset_head=reset_head,
            allow_nonfinite=allow_nonfinite,
            preprocess=preprocess,
            image_size=image_size,
            num_classes=num_classes,
            prop_attn=prop_attn,
            formats=formats.split(","),
            opset=opset,
            outputs=outputs.split(","),
            targets=target or (),
            precisions=tuple(dict.fromkeys(precision.split(","))),
            calibration=calibration,
            images=images,
            min_agreement=min_agreement,
            keep_float=keep_float.split(",") if keep_float else (),
            seed=seed,
            labels=_read_labels(labels),
        )
        steps = ConsoleSteps(opened.stdout, TITLES)
        bundle = run(request, out, force=force, steps=steps)
        _print_summary(opened, bundle, out, sum(steps.seconds.values()), views)


def _parse_r(text: str, inflect: float | None) -> int | list[int] | tuple[int, float]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise ScheduleError(f"--r {text!r} is not a whole number or a list such as 16,16,8") from None
    if inflect is None:
        return values if "," in text else values[0]
    if len(values) > 1:
        raise ScheduleError("--inflect goes with a single r, not a list")
    return values[0], inflect


def _read_labels(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read as a list of labels ({error})") from None


def _print_summary(opened: Quiet, bundle, out: Path, seconds: float, views) -> None:
    from tome_export.console import size
    from tome_export.steps import peak_memory

    manifest = bundle.manifest
    where = views.shown_path(out)
    show = lambda text="": print(text, file=opened.stdout)  # noqa: E731
    peak = peak_memory()
    memory = f", {size(peak)} of memory at most" if peak else ""
    show(f"  {'total':<44}{seconds:6.1f} s{memory}\n")
    show(views.headline(manifest))
    if manifest.weights.seed is not None:
        show("no --weights given: the parameters are random, so this bundle serves speed tests only")
    else:
        show(f"weights: {views.weights(manifest)}")
    for note in manifest.weights.notes:
        show(f"note: {note}")
    show(f"\n{where}\n{views.files(bundle)}")
    show(f"\n{views.parity(manifest.parity)}")
    if manifest.precisions:
        show(f"\n{views.precisions(manifest.precisions)}")
    show("\nnext")
    for command in (f"predict {where} PHOTO.jpg", f"verify {where}", f"inspect {where}"):
        show(f"  tome-export {command}")
