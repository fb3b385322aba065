"""Build a TensorRT engine of an ONNX model.

The network is strongly typed: each tensor keeps the type it has in the graph, so half precision is a matter
of the graph (`inference.fp16.onnx`), which decides in fp32 what merges. TensorRT 11 has no other kind. TF32
is off for the same reason: its products have the ten bits of fp16.

Names follow TensorRT's Python API, https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, ConversionError, GpuError, MissingExtraError, RequestError
from tome_export.runtimes import artifact_of
from tome_export.runtimes.base import first_line
from tome_export.tensorrt.gpu import INSTALL

OLDEST = (10, 0)


@dataclass(frozen=True)
class Profile:
    """The batch sizes an engine takes, and the one it is fastest at. Raises RequestError."""

    min: int = 1
    opt: int = 8
    max: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise RequestError(
                f"--min-batch {self.min}, --opt-batch {self.opt} and --max-batch {self.max} should not fall, "
                "and start at 1 or more"
            )


@dataclass(frozen=True)
class Graph:
    """An ONNX model to build from. path: its file. model: the same with further outputs, or None. sha256: of
    everything that shapes the engine."""

    path: Path
    model: bytes | None
    sha256: str


def graph_of(bundle: Bundle, precision: str, taps: bool = False) -> Graph:
    """The bundle's ONNX model of this precision; taps: with the tensors inside as outputs.

    Raises RequestError, BundleError.
    """
    try:
        artifact = artifact_of("tensorrt", bundle, precision)
    except BundleError as error:
        if precision != "fp16":
            raise
        raise BundleError(
            f"{error}; TensorRT takes its types from the graph: export again with --precision {precision}"
        ) from None
    path = bundle.file(artifact, ".onnx")
    digest = hashlib.sha256("".join(artifact.files[name] for name in sorted(artifact.files)).encode())
    model = None
    if taps:
        from tome_export.onnx_taps import with_taps

        model = with_taps(path, bundle.taps)
        digest.update(model)
    return Graph(path, model, digest.hexdigest())


def build(trt: Any, graph: Graph, image: tuple[int, ...], profile: Profile) -> bytes:
    """A serialised engine, for the GPU that is the calling thread's. Takes minutes.

    image: shape of one image, [3, H, W]. Raises ConversionError, GpuError.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    try:
        builder = trt.Builder(logger)
    except TypeError:  # how its bindings say that it could not be created
        raise GpuError("TensorRT cannot start on this GPU; its own message shows with --debug") from None
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if graph.model is None:
        read = parser.parse_from_file(str(graph.path))
    else:
        read = parser.parse(graph.model, str(graph.path))  # the path tells where weights in a side file are
    if not read:
        told = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ConversionError(f"TensorRT cannot read {graph.path.name} ({'; '.join(told)[:300]})")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    sizes = (profile.min, profile.opt, profile.max)
    shapes.set_shape(network.get_input(0).name, *((size, *image) for size in sizes))
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ConversionError(
            f"TensorRT cannot build an engine of {graph.path.name}; its own message shows with --debug"
        )
    return bytes(plan)


def load_tensorrt() -> Any:
    """The tensorrt package. Raises MissingExtraError."""
    try:
        import tensorrt
    except ModuleNotFoundError:
        raise MissingExtraError(f"the tensorrt package is not installed: {INSTALL}") from None
    except Exception as error:  # its libraries may be missing
        raise MissingExtraError(
            f"TensorRT is installed but cannot be imported ({first_line(error)}); reinstall it: {INSTALL}"
        ) from None
    if tuple(map(int, tensorrt.__version__.split(".")[:2])) < OLDEST:
        raise MissingExtraError(f"TensorRT {tensorrt.__version__} is older than 10: {INSTALL}")
    return tensorrt
