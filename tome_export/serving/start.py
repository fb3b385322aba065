"""`tome-export serve`, step by step: check, start, say what there is, wait, drain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tome_export import views
from tome_export.bundle import Bundle
from tome_export.console import ConsoleSteps, table
from tome_export.errors import BundleError, RequestError, ServingError
from tome_export.manifest import TensorInfo
from tome_export.quiet import Quiet
from tome_export.runtimes import RUNTIMES, artifact_of, check_made, check_name
from tome_export.runtimes.base import parse_device
from tome_export.serving.local import Server, running, wait_for_signal
from tome_export.serving.options import Limits, Listen, ModelOptions, Scale

_TITLES = {"ray": "start Ray", "replicas": "start the replicas", "drain": "answer what is under way"}


def check_bundle(folder: Path, limits: Limits, name: str | None, runtime: str, **chosen: Any) -> ModelOptions:
    """The options for this bundle, as far as they can be checked without opening the model.

    Raises RequestError, BundleError, MissingExtraError.
    """
    bundle = Bundle.open(folder)
    precision = chosen["precision"]
    options = ModelOptions(
        bundle=str(folder.resolve()),
        name=bundle.manifest.model.name if name is None else name,
        runtime=check_name(runtime) if runtime else _fastest(bundle, precision),
        **chosen,
    )
    kind, index = parse_device(options.device)
    if index:
        raise RequestError("--device cuda:N is not for a server: Ray gives each replica a GPU; use cuda")
    if kind not in RUNTIMES[options.runtime].devices:
        raise RequestError(f"{options.runtime} does not run on {kind}")
    for suffix in (".json", ".pdiparams") if RUNTIMES[options.runtime].reads == "paddle" else (".onnx",):
        bundle.file(artifact_of(options.runtime, bundle, precision), suffix)
    check_made(options.runtime, precision, bundle.manifest)
    if limits.body_bytes <= _row_bytes(bundle.manifest.inputs[0]):
        raise RequestError(f"--max-body-mb {limits.body_mb} is less than a single image takes")
    return options


def serve_here(
    options: ModelOptions, scale: Scale, limits: Limits, listen: Listen, opened: Quiet, debug: bool
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises RequestError, MissingExtraError, ServingError."""
    manifest = Bundle.open(Path(options.bundle)).manifest
    show = lambda text="": print(text, file=opened.stdout, flush=True)  # noqa: E731
    show(f"{views.headline(manifest)}\n")
    steps = ConsoleSteps(opened.stdout, _TITLES)
    with running(options, scale, limits, listen, steps, debug) as server:
        show(f"\n{table(_described(options, scale, server, listen))}")
        show(f"\ntry\n  curl --data-binary @photo.jpg {server.url}/predict\n\nCtrl-C stops it")
        wait_for_signal()
        show()
        with steps("drain"):
            left = server.drain()
    if left:
        raise ServingError(f"{left} requests were not answered within {limits.drain_seconds:g} seconds")
    show("stopped")


def _described(options: ModelOptions, scale: Scale, server: Server, listen: Listen) -> list[tuple[str, str]]:
    threads = f", {options.threads} threads" if options.device == "cpu" else ""
    return [
        ("HTTP", server.url),
        ("gRPC", f"{listen.host}:{listen.grpc_port}"),
        ("models", f"{options.name}, {options.name}_jpeg"),
        ("on", f"{options.runtime}, {options.precision}, {options.device}{threads}"),
        ("replicas", str(scale)),
        ("batch", f"up to {options.max_batch} images, after {options.max_delay_ms:g} ms at most"),
        ("metrics", f"{server.url}/metrics"),
    ]


def _fastest(bundle: Bundle, precision: str) -> str:
    """onnx where the bundle has a model for it: of the two that every bundle has, the faster on CPUs."""
    try:
        artifact_of("onnx", bundle, precision)
    except BundleError:
        return bundle.first_format(precision)
    return "onnx"


def _row_bytes(image: TensorInfo) -> int:
    return int(np.prod(image.shape[1:])) * np.dtype(image.dtype).itemsize
