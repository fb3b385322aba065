"""`tome-export triton DIR --out REPO`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session
from tome_export.errors import RequestError

_UNTRIED = "note: --gpu and --tensorrt were checked against Triton's documentation, not yet run on a GPU"


def triton(
    folder: Folder,
    out: Annotated[
        Path, typer.Option(metavar="REPO", help="Model repository to create or add to.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the model in Triton.", show_default="the model's, such as vit_b16")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the ONNX model in the bundle.")] = "fp32",
    max_batch: Annotated[int, typer.Option(help="Images that Triton may put in a batch.")] = 32,
    preferred_batch: Annotated[
        str, typer.Option(help="Batch sizes to send off at once, such as 8,16.", show_default="none")
    ] = "",
    max_delay_us: Annotated[
        int, typer.Option(help="Microseconds a request may wait for others to join.")
    ] = 1000,
    instances: Annotated[int, typer.Option(help="Copies of the model, on each GPU or the CPU.")] = 1,
    preprocess_instances: Annotated[int, typer.Option(help="Processes that decode pictures.")] = 2,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a copy of the model.", show_default="all")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run the model on GPUs.")] = False,
    tensorrt: Annotated[bool, typer.Option("--tensorrt", help="There, by TensorRT.")] = False,
    top: Annotated[int, typer.Option(help="Classes in an answer.")] = 5,
    force: Annotated[bool, typer.Option("--force", help="Replace models of the same names.")] = False,
    debug: Debug = False,
) -> None:
    """Write a bundle as a model repository of the Triton Inference Server."""
    with session(debug) as opened:
        from tome_export import views
        from tome_export.bundle import Bundle
        from tome_export.console import size, table
        from tome_export.triton.repository import write_repository
        from tome_export.triton.serving import Serving

        bundle = Bundle.open(folder)
        serving = Serving(
            name=bundle.manifest.model.name if name is None else name,
            precision=precision,
            max_batch=max_batch,
            preferred_batches=_sizes(preferred_batch),
            max_delay_us=max_delay_us,
            instances=instances,
            preprocess_instances=preprocess_instances,
            threads=threads,
            gpu=gpu,
            tensorrt=tensorrt,
            top=top,
        )
        found = write_repository(bundle, out, serving, force)
        what = {
            serving.name: "image -> logits",
            f"{serving.name}_preprocess": "jpeg -> image",
            f"{serving.name}_postprocess": "logits -> labels",
            f"{serving.name}_jpeg": "jpeg -> labels: these three in a row",
        }
        rows = [(model, what[model], size(sum(files.values()))) for model, files in found.items()]
        show = lambda text="": print(text, file=opened.stdout)  # noqa: E731
        show(f"{views.headline(bundle.manifest)}\n\n{views.shown_path(out)}\n{table(rows, right=[2])}")
        if gpu:
            show(f"\n{_UNTRIED}")
        show(f"\nnext\n  tritonserver --model-repository {views.shown_path(out)}")
        show(
            "  curl --data-binary @photo.jpg -H 'Inference-Header-Content-Length: 0' "
            f"localhost:8000/v2/models/{serving.name}_jpeg/infer --output - | strings"
        )


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise RequestError(f"--preferred-batch {text!r} is not a list of batch sizes such as 8,16") from None
