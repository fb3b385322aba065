"""ONNX Runtime, from the onnxruntime or onnxruntime-gpu package."""

from __future__ import annotations

import numpy as np
import onnxruntime
from bundle import Bundle, EngineError, RequestError

_ERRORS_ONLY = 3  # of ONNX Runtime's log severities


class Engine:
    """threads: of the CPU, inside an operator. Raises RequestError, EngineError."""

    version = onnxruntime.__version__

    def __init__(self, bundle: Bundle, threads: int, gpu: bool):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Without VNNI, a processor's fast product of uint8 and int8 saturates; with it, this is only slower.
        if not _has_vnni():
            options.add_session_config_entry("session.x64quantprecision", "1")
        providers = ["CUDAExecutionProvider"] * gpu + ["CPUExecutionProvider"]
        if gpu and providers[0] not in onnxruntime.get_available_providers():
            raise RequestError("this ONNX Runtime has no CUDA; leave out --gpu, or install onnxruntime-gpu")
        try:
            self._session = onnxruntime.InferenceSession(
                str(bundle.files[".onnx"]), options, providers=providers
            )
        except Exception as error:
            raise EngineError(f"ONNX Runtime cannot load {bundle.files['.onnx'].name} ({error})") from error
        if providers[0] not in self._session.get_providers():  # it would run on the CPU instead
            raise RequestError("ONNX Runtime could not start CUDA; leave out --gpu, or see to CUDA and cuDNN")
        self._input = self._session.get_inputs()[0].name

    def run(self, image: np.ndarray) -> np.ndarray:
        """float32 `[n, 3, crop, crop]` -> logits, float32 `[n, classes]`. Raises EngineError."""
        try:
            return self._session.run(["logits"], {self._input: image})[0]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed ({error})") from error


def _has_vnni() -> bool:
    """As far as Linux tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            words = set(file.read().split())
    except OSError:
        return False
    return not words.isdisjoint(("avx512_vnni", "avx_vnni"))
