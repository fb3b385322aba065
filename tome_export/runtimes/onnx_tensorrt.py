"""ONNX Runtime's TensorRT provider, from the onnxruntime-gpu package; it also needs TensorRT's libraries.

It leaves to CUDA what TensorRT cannot run, builds an engine whenever a batch leaves the range seen so far,
and keeps it. Types are those of the graph, since `trt_fp16_enable` is not set
(https://github.com/microsoft/onnxruntime/pull/18707). Not yet run on a GPU.
"""

from __future__ import annotations

from typing import Any

from tome_export.bundle import Bundle
from tome_export.caches import cache_folder
from tome_export.errors import MissingExtraError, RequestError
from tome_export.runtimes.base import Probe, check_threads, parse_device
from tome_export.runtimes.onnx_runtime import TENSORRT, OnnxRuntime, load_onnxruntime

_INSTALL = 'pip uninstall onnxruntime, then pip install "tome-export[onnx-gpu,tensorrt]"'


def open_bundle(
    bundle: Bundle,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    onednn: bool = True,
    taps: bool = False,
    spin: bool = True,
) -> OnnxTensorRt:
    """See `tome_export.runtimes.open_runtime`; `onednn` and `spin` mean nothing here."""
    return OnnxTensorRt(bundle, precision, device, check_threads(threads), taps)


def probe() -> Probe:
    """Import ONNX Runtime and say whether it was built with TensorRT."""
    try:
        onnxruntime = load_onnxruntime()
        _check_built(onnxruntime)
    except (MissingExtraError, RequestError) as error:
        return Probe("onnx-tensorrt", False, None, str(error))
    return Probe("onnx-tensorrt", True, onnxruntime.__version__, "cuda")


class OnnxTensorRt(OnnxRuntime):
    """As `OnnxRuntime`, by TensorRT. Refused, not run by CUDA alone, if TensorRT does not start."""

    name = "onnx-tensorrt"

    def _provider(self, onnxruntime: Any, device: str) -> tuple[str, dict[str, str]]:
        kind, _ = parse_device(device)
        _check_built(onnxruntime)
        if kind != "cuda":
            raise RequestError("TensorRT runs on GPUs only; use --device cuda, or another runtime")
        folder = cache_folder() / "engines" / f"onnxruntime-{onnxruntime.__version__}"
        folder.mkdir(parents=True, exist_ok=True)
        return TENSORRT, {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}


def _check_built(onnxruntime: Any) -> None:
    if TENSORRT not in onnxruntime.get_available_providers():
        raise RequestError(f"this ONNX Runtime has no TensorRT: {_INSTALL}")
