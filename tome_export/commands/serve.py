"""`tome-export serve DIR`"""

from __future__ import annotations

from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session


def serve(
    folder: Folder,
    port: Annotated[int, typer.Option(help="Of HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Of gRPC.")] = 8001,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    replicas: Annotated[
        int | None, typer.Option(metavar="N", help="Copies of the model.", show_default="1")
    ] = None,
    autoscale: Annotated[
        str | None, typer.Option(metavar="MIN:MAX", help="As many copies as the load needs.", show_default="")
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Images in a run of the model.")] = 16,
    max_delay_ms: Annotated[
        float, typer.Option(help="Milliseconds a request may wait for others to join.")
    ] = 5.0,
    name: Annotated[
        str | None, typer.Option(help="Of the model.", show_default="the bundle's, such as vit_b16")
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(help="paddle, onnx, openvino or another.", show_default="onnx, if the bundle has it"),
    ] = "",
    precision: Annotated[str, typer.Option(help="Of the model to run.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a copy.", show_default="all, divided among them")
    ] = None,
    top: Annotated[int, typer.Option(help="Classes in an answer about a picture.")] = 5,
    max_body_mb: Annotated[int, typer.Option(help="MiB of a request at most.")] = 32,
    max_megapixels: Annotated[int, typer.Option(help="Of a picture at most, in millions of pixels.")] = 40,
    max_requests: Annotated[int, typer.Option(help="Requests at once; others are told to come back.")] = 256,
    body_timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive.")] = 20.0,
    answer_timeout: Annotated[float, typer.Option(help="Seconds from there to its answer.")] = 60.0,
    drain_timeout: Annotated[float, typer.Option(help="Seconds for what is under way at SIGTERM.")] = 30.0,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print a file for `serve deploy` on a Ray cluster instead.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Serve a bundle over HTTP and gRPC (Open Inference Protocol v2, and pictures), on Ray Serve."""
    with session(debug) as opened:
        from tome_export.serving.needs import check_installed

        check_installed()
        from tome_export.serving.config_file import as_yaml, config
        from tome_export.serving.local import cores
        from tome_export.serving.options import Limits, Listen, Scale, divided_threads
        from tome_export.serving.start import check_bundle, serve_here

        scale = Scale.parse(replicas, autoscale)
        limits = Limits(max_body_mb, body_timeout, answer_timeout, max_requests, drain_timeout)
        listen = Listen(host, port, grpc_port)
        options = check_bundle(
            folder,
            limits,
            name=name,
            runtime=runtime,
            precision=precision,
            device=device,
            threads=divided_threads(cores(), scale) if threads is None else threads,
            max_batch=max_batch,
            max_delay_ms=max_delay_ms,
            top=top,
            max_megapixels=max_megapixels,
        )
        if print_config:
            print(as_yaml(config(options, scale, limits, listen)), end="", file=opened.stdout)
        else:
            serve_here(options, scale, limits, listen, opened, debug)
