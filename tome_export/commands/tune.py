"""`tome-export tune --model NAME --weights FILE --images FOLDER --speedup 2.0`"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from tome_export.commands.session import Debug, session
from tome_export.errors import RequestError

_TITLES = {
    "download": "download the weights",
    "model": "build the model",
    "pictures": "read the pictures",
    "open": "export it without merging",
    "costs": "measure what tokens cost",
    "search": "search",
    "judge": "judge on the held-out pictures",
    "speed": "measure the speed of what was found",
}


def tune_command(
    model: Annotated[str, typer.Option(help="Model name; see `tome-export models`.", show_default=False)],
    weights: Annotated[
        str,
        typer.Option(help="A file, https://..., or hf:owner/name[@revision][:file].", show_default=False),
    ],
    images: Annotated[
        Path, typer.Option(help="Folder of pictures, and folders of pictures.", show_default=False)
    ],
    speedup: Annotated[
        float | None, typer.Option(help="Over r = 0: find what agrees most.", show_default=False)
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            help="With r = 0, such as 0.99 (with --labels, of right answers): find the fastest.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Accuracy instead: a list of `path label` lines, or `folders` if each class has one.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[str, typer.Option(help="Where speed counts: onnx, paddle or openvino.")] = "onnx",
    precision: Annotated[str, typer.Option(help="There: fp32, or bf16 on openvino.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="On the CPU.", show_default="all")] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    limit: Annotated[int, typer.Option(help="Pictures at most, spread evenly; half are held out.")] = 512,
    minutes: Annotated[float, typer.Option(help="Time for the search at most.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the halves and the order of the search.")] = 0,
    costs: Annotated[
        Path | None,
        typer.Option(help="File to keep measured costs in, or to read them from.", show_default=False),
    ] = None,
    check_speed: Annotated[bool, typer.Option(help="Measure what was found, too.")] = True,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="File to write every figure to.", show_default=False)
    ] = None,
    weights_sha256: Annotated[str | None, typer.Option(help="As for an export.", show_default=False)] = None,
    weights_layout: Annotated[str | None, typer.Option(help="As for an export.", show_default=False)] = None,
    preprocess: Annotated[str | None, typer.Option(help="As for an export.", show_default=False)] = None,
    image_size: Annotated[int | None, typer.Option(help="As for an export.", show_default=False)] = None,
    num_classes: Annotated[int | None, typer.Option(help="As for an export.", show_default=False)] = None,
    prop_attn: Annotated[
        bool | None,
        typer.Option(
            "--prop-attn/--no-prop-attn", help="As for an export.", show_default="on; off for mae_*"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Find how much each block should merge: the best agreement at a speed, or the other way round."""
    found = None
    with session(debug) as opened:
        from tome_export.console import ConsoleSteps
        from tome_export.evaluation.interrupt import Interrupt
        from tome_export.tune import tune
        from tome_export.tuning.report import as_text, schedule_option

        for path in filter(None, (as_json, costs)):
            if not path.resolve().parent.is_dir():
                raise RequestError(f"{path}: there is no folder {path.parent}")
        options = {
            "weights": weights,
            "weights_sha256": weights_sha256,
            "weights_layout": weights_layout,
            "preprocess": preprocess,
            "image_size": image_size,
            "num_classes": num_classes,
            "prop_attn": prop_attn,
        }
        found = tune(
            model,
            images,
            speedup=speedup,
            min_agreement=min_agreement,
            labels=labels,
            runtime=runtime,
            precision=precision,
            device=device,
            threads=threads,
            batch=batch,
            limit=limit,
            minutes=minutes,
            seed=seed,
            costs=costs,
            check_speed=check_speed,
            steps=ConsoleSteps(opened.stdout, _TITLES),
            interrupt=Interrupt(),
            **options,
        )
        show = lambda text: print(text, file=opened.stdout, flush=True)  # noqa: E731
        show(f"\n{as_text(found)}")
        if as_json is not None:
            as_json.write_text(found.to_json() + "\n", encoding="utf-8")
            show(f"\n{as_json}")
        show(f"\nnext\n  {export_line(model, schedule_option(found.best.r), options)}")
    if found is not None and found.interrupted:
        print(f"error: interrupted; this is the best of {found.tried} schedules", file=sys.stderr)
        raise typer.Exit(130)


def export_line(model: str, r: str, options: dict[str, object]) -> str:
    """The command that exports this model with this schedule."""
    words = ["tome-export", "--model", model]
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{option}")
        elif value is not None:
            words += [f"--{option}", str(value)]
    return shlex.join([*words, "--r", r, "--out", "./infer"])
