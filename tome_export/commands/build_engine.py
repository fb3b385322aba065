"""`tome-export build-engine DIR`"""

from __future__ import annotations

from typing import Annotated

import typer

from tome_export.commands.session import Debug, Folder, session


def build_engine(
    folder: Folder,
    precision: Annotated[str, typer.Option(help="Of the ONNX model in the bundle: fp32 or fp16.")] = "fp32",
    min_batch: Annotated[int, typer.Option(help="Smallest batch the engine takes.")] = 1,
    opt_batch: Annotated[int, typer.Option(help="Batch it is fastest at.")] = 8,
    max_batch: Annotated[int, typer.Option(help="Largest batch it takes.")] = 64,
    device: Annotated[str, typer.Option(help="cuda or cuda:N.")] = "cuda",
    debug: Debug = False,
) -> None:
    """Build a TensorRT engine for this machine's GPU, and keep it for --runtime tensorrt."""
    with session(debug) as opened:
        from tome_export import views
        from tome_export.bundle import Bundle
        from tome_export.console import ConsoleSteps, size
        from tome_export.runtimes.tensorrt_runtime import built_engine
        from tome_export.tensorrt.engine import Profile, load_tensorrt

        show = lambda text="": print(text, file=opened.stdout)  # noqa: E731
        profile = Profile(min_batch, opt_batch, max_batch)
        bundle = Bundle.open(folder)
        steps = ConsoleSteps(opened.stdout, {"build": f"build the {precision} engine, which takes minutes"})
        with steps("build"):
            engine, built, cuda = built_engine(bundle, precision, device, profile)
        cuda.close()
        show(f"\n{views.headline(bundle.manifest)}")
        version = load_tensorrt().__version__
        show(f"{cuda.gpu.name}, compute capability {cuda.gpu.capability}, TensorRT {version}")
        show(f"batches of {min_batch} to {max_batch}, fastest at {opt_batch}")
        show(f"\n{engine.path}  {size(engine.path.stat().st_size)}{'' if built else ', built before'}")
        show("\nnext")
        where, how = views.shown_path(folder), f"--runtime tensorrt --precision {precision} --device {device}"
        show(f"  tome-export verify {where} --runtimes tensorrt:{precision} --device {device}")
        show(f"  tome-export predict {where} PHOTO.jpg {how}")
        show(f"  tome-export bench {where} {how} --against r0")
