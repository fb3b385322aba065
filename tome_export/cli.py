"""The command line: the table of commands, and the entry point."""

from __future__ import annotations

import sys

import typer

from tome_export.commands.bench import bench_command
from tome_export.commands.build_engine import build_engine
from tome_export.commands.doctor import doctor
from tome_export.commands.evaluate import evaluate_command
from tome_export.commands.export import export_command
from tome_export.commands.inspect import inspect
from tome_export.commands.lint import lint
from tome_export.commands.models import models
from tome_export.commands.predict import predict
from tome_export.commands.predict_many import predict_many_command
from tome_export.commands.serve import serve
from tome_export.commands.triton import triton
from tome_export.commands.tune import tune_command
from tome_export.commands.verify import verify
from tome_export.commands.visualize import visualize

COMMANDS = {
    "predict": predict,
    "predict-many": predict_many_command,
    "eval": evaluate_command,
    "bench": bench_command,
    "tune": tune_command,
    "visualize": visualize,
    "verify": verify,
    "inspect": inspect,
    "lint": lint,
    "triton": triton,
    "serve": serve,
    "build-engine": build_engine,
    "models": models,
    "doctor": doctor,
}
"""In the order that --help shows them."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Export a Vision Transformer with Token Merging to Paddle Inference and ONNX, proved equal.\n\n"
    "  tome-export --model vit_b16 --r 16 --out ./infer",
)
app.callback(invoke_without_command=True)(export_command)
for name, command in COMMANDS.items():
    app.command(name)(command)
_UsageError = typer.BadParameter.__bases__[0]  # Typer brings click's as its own and does not name it


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
