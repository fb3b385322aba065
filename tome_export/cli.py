"""The command line: parse, call, print. Heavy imports wait until they are needed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tome_core.errors import ScheduleError, TomeError
from tome_export.errors import RequestError
from tome_export.quiet import Quiet, quiet

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Export a Vision Transformer with Token Merging to Paddle Inference and ONNX, proved equal.\n\n"
    "  tome-export --model vit_b16 --r 16 --out ./infer",
)
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and third parties' output.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An exported bundle.", show_default=False)]
_UsageError = typer.BadParameter.__bases__[0]  # Typer brings click's as its own and does not name it
_VERDICTS = {True: "ok", False: "no", None: ""}
TITLES = {
    "download": "download the weights",
    "model": "build the model",
    "reference": "run it on the parity samples",
    "trace": "trace and save for Paddle Inference",
    "onnx": "convert to ONNX",
    "parity": "prove that the runtimes agree with it",
    "write": "write the bundle",
}


@app.callback(invoke_without_command=True)
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
    with _session(debug) as session:
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
            seed=seed,
            labels=_read_labels(labels),
        )
        steps = ConsoleSteps(session.stdout, TITLES)
        bundle = run(request, out, force=force, steps=steps)
        _print_summary(session, bundle, out, sum(steps.seconds.values()), views)


@app.command()
def predict(
    folder: Folder,
    photo: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    runtime: Annotated[str, typer.Option(help="paddle or onnx.", show_default="the first there is")] = "",
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    debug: Debug = False,
) -> None:
    """Classify image files with an exported bundle."""
    with _session(debug) as session:
        from tome_export.console import table
        from tome_export.predict import predict_files

        name, predictions = predict_files(folder, photo, runtime, top, device)
        for path, classes in zip(photo, predictions, strict=True):
            rows = [(entry.label, f"{entry.probability:.4f}") for entry in classes]
            print(f"{path} ({name})\n{table(rows, right=[1])}", file=session.stdout)


@app.command()
def verify(folder: Folder, debug: Debug = False) -> None:
    """Check a bundle's hashes, and that its runtimes agree with each other (needs no Python model)."""
    with _session(debug) as session:
        from tome_export import views
        from tome_export.console import ConsoleSteps
        from tome_export.verify import verify_bundle

        steps = ConsoleSteps(session.stdout, {"hashes": "hash the files", "parity": "run every runtime"})
        results = verify_bundle(folder, steps)
        print(
            f"\n{views.parity(results)}" if results else "\n  one runtime: nothing to compare",
            file=session.stdout,
        )
        print(
            f"\n{folder} is whole and its runtimes agree" if results else f"\n{folder} is whole",
            file=session.stdout,
        )


@app.command()
def inspect(folder: Folder, debug: Debug = False) -> None:
    """Show a bundle's model, merging schedule, files and parity."""
    with _session(debug) as session:
        from tome_export import views
        from tome_export.bundle import Bundle

        bundle = Bundle.open(folder)
        manifest = bundle.manifest
        print(views.headline(manifest), file=session.stdout)
        print(f"weights: {views.weights(manifest)}", file=session.stdout)
        attention = "on" if manifest.tome.prop_attn else "off"
        print(f"proportional attention: {attention}\n\n{views.schedule(manifest)}", file=session.stdout)
        print(f"\nfiles\n{views.files(bundle)}", file=session.stdout)
        against = manifest.parity[0].against if manifest.parity else "nothing"
        print(f"\nagreement with {against}\n{views.parity(manifest.parity)}", file=session.stdout)


@app.command()
def models() -> None:
    """List the models that can be exported by name."""
    from tome_core.zoo.config import get_config, model_names
    from tome_export.console import giga, table
    from tome_export.pipeline import macs
    from tome_export.request import ExportRequest

    rows: list[tuple[object, ...]] = [
        ("model", "patch", "width", "depth", "heads", "tokens", "multiply-adds", "r = 16")
    ]
    for name in model_names():
        config = get_config(name)
        cost = macs(config, ExportRequest(name, r=16).schedule())
        rows.append(
            (name, config.patch_size, config.embed_dim, config.depth, config.num_heads, config.tokens)
            + (giga(cost.base), f"{cost.base / cost.tome:.2f}x fewer")
        )
    print(table(rows, right=range(1, 8)))


@app.command()
def doctor(debug: Debug = False) -> None:
    """Show which runtimes and extras can be used here, and what to install for the others."""
    with _session(debug) as session:
        from tome_export.console import table
        from tome_export.doctor import diagnose

        rows = [
            (check.group, check.name, _VERDICTS[check.ok], check.value or "", check.advice or "")
            for check in diagnose()
        ]
        print(table(rows), file=session.stdout)


def main() -> None:
    """Entry point of `tome-export`. Exits 0, 1 for a failure, 2 for a mistake in the request."""
    try:
        status = app(standalone_mode=False)
    except _UsageError as error:
        print(f"error: {error.format_message()} (tome-export --help shows what there is)", file=sys.stderr)
        status = 2
    except typer.Abort:
        status = 130
    sys.exit(status)


@contextmanager
def _session(debug: bool) -> Iterator[Quiet]:
    """Run a command's work: third parties are silent, an error is one line and an exit status."""
    error: BaseException | None = None
    with quiet(debug) as session:
        try:
            yield session
        except (TomeError, MemoryError, OSError, KeyboardInterrupt) as caught:
            error = caught
        except (SystemExit, GeneratorExit):
            raise
        except Exception as caught:
            error = caught
        if error is not None and debug:
            traceback.print_exception(error)
    if error is not None:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1))


def _one_line(error: BaseException) -> str:
    if isinstance(error, TomeError):
        return " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing was written"
    if isinstance(error, MemoryError):
        return "out of memory; nothing was written"
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text} (run with --debug for the traceback)"


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


def _print_summary(session: Quiet, bundle, out: Path, seconds: float, views) -> None:
    from tome_export.console import size
    from tome_export.steps import peak_memory

    manifest = bundle.manifest
    where = views.shown_path(out)
    show = lambda text="": print(text, file=session.stdout)  # noqa: E731
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
    show(f"\nagreement with the Paddle model, largest difference\n{views.parity(manifest.parity)}")
    show("\nnext")
    for command in (f"predict {where} PHOTO.jpg", f"verify {where}", f"inspect {where}"):
        show(f"  tome-export {command}")
