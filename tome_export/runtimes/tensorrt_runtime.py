"""TensorRT 10 and later, from the tensorrt package, on GPUs. It reads the bundle's ONNX model.

Written against TensorRT's documentation and the names in its Python bindings; not yet run on a GPU.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, GpuError, RequestError
from tome_export.runtimes.base import Probe, Runtime, check_threads, parse_device
from tome_export.tensorrt import cache
from tome_export.tensorrt.engine import Profile, build, graph_of, load_tensorrt
from tome_export.tensorrt.gpu import Cuda


def open_bundle(
    bundle: Bundle,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    onednn: bool = True,
    taps: bool = False,
    spin: bool = True,
) -> TensorRt:
    """See `tome_export.runtimes.open_runtime`; `threads`, `onednn` and `spin` mean nothing here."""
    check_threads(threads)
    return TensorRt(bundle, precision, device, taps)


def probe() -> Probe:
    """Import TensorRT and say whether there is a GPU."""
    try:
        version = load_tensorrt().__version__
        cuda = Cuda(0)
    except (RequestError, GpuError) as error:  # a missing package is one too
        return Probe("tensorrt", False, None, str(error))
    cuda.close()
    return Probe("tensorrt", True, version, f"{cuda.gpu.name} ({cuda.gpu.capability})")


def built_engine(
    bundle: Bundle, precision: str, device: str, profile: Profile | None = None, taps: bool = False
) -> tuple[cache.Engine, bool, Cuda]:
    """The bundle's engine for this GPU, kept or built now; whether it was built; and the GPU, to be closed.

    profile: None takes whichever is kept. Raises RequestError, BundleError, MissingExtraError, GpuError,
    ConversionError.
    """
    graph = graph_of(bundle, precision, taps)
    kind, index = parse_device(device)
    trt = load_tensorrt()
    if kind != "cuda":
        raise RequestError("TensorRT runs on GPUs only; use --device cuda, or another runtime")
    cuda = Cuda(index)
    try:
        image = bundle.manifest.inputs[0].shape[1:]
        engine, built = cache.engine_of(
            graph, cuda.gpu, trt.__version__, profile, lambda asked: build(trt, graph, image, asked)
        )
    except BaseException:
        cuda.close()
        raise
    return engine, built, cuda


class TensorRt(Runtime):
    """One engine and its execution context, with buffers for its largest batch.

    The engine is the one that `tome-export build-engine` built for this GPU, or is built now, which takes
    minutes. precision: of an ONNX model in the bundle, fp32 or fp16.
    """

    name = "tensorrt"

    def __init__(self, bundle: Bundle, precision: str, device: str, taps: bool = False):
        super().__init__(bundle, device)
        engine, _, self._cuda = built_engine(bundle, precision, device, taps=taps)
        try:
            self._start(engine, bundle.taps if taps else ())
        except BaseException:
            self._cuda.close()
            raise

    def _start(self, engine: cache.Engine, taps: tuple[str, ...]) -> None:
        trt = load_tensorrt()
        self.version = trt.__version__
        self._batches = engine.profile
        try:
            runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        except TypeError:
            raise GpuError("TensorRT cannot start on this GPU; its own message shows with --debug") from None
        self._engine = runtime.deserialize_cuda_engine(engine.path.read_bytes())
        if self._engine is None:
            raise BundleError(f"{engine.path}: TensorRT cannot read this engine; remove it to build again")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise GpuError("this GPU's memory does not hold the engine; see --max-batch of build-engine")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        made = {name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT}
        self._check_outputs(sum(name in made for name in self._outputs))
        self._outputs += tuple(name for name in taps if name in made and name not in self._outputs)
        self._dtypes = {name: np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        self._shape(self._batches.max)
        for name in names:
            size = prod(self._context.get_tensor_shape(name)) * self._dtypes[name].itemsize
            self._context.set_tensor_address(name, self._cuda.allocate(name, size))

    def _shape(self, batch: int) -> None:
        self._context.set_input_shape(self._input.name, (batch, *self._input.shape[1:]))

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        if not self._batches.min <= len(image) <= self._batches.max:
            raise RequestError(
                f"this engine takes batches of {self._batches.min} to {self._batches.max}, not {len(image)}; "
                "build another with tome-export build-engine --max-batch"
            )
        self._cuda.use()
        self._shape(len(image))
        self._cuda.upload(self._input.name, image)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise GpuError("TensorRT could not run the engine; its own message shows with --debug")
        outputs = [
            np.empty(tuple(self._context.get_tensor_shape(name)), self._dtypes[name])
            for name in self._outputs
        ]
        self._cuda.download(self._outputs, outputs)
        return outputs

    def _close(self) -> None:
        self._context = self._engine = None
        self._cuda.close()
