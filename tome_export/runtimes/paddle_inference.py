"""Paddle Inference, the `paddle.inference` module of the paddlepaddle package.

In bf16 oneDNN takes every operator that it knows to bf16 if its inputs are float32: Paddle's list of the
operators to take has no effect on models in Paddle 3's format. Of a merge that is the metric and the average.
Similarities are products of bf16 numbers, summed and kept in float32. Sizes are float32: what is around them
is not oneDNN's, and a lone operator is not converted. Labels are whole numbers.

In fp16, on GPUs, its mixed-precision pass takes every operator that has a kernel for it, similarities and
their order too; for models in Paddle 3's format it reads no list either. Not yet run on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, MissingExtraError, RequestError
from tome_export.manifest import Manifest
from tome_export.runtimes import artifact_of
from tome_export.runtimes.base import Probe, Runtime, check_counts, check_threads, first_line, parse_device

_GPU_POOL_MB = 256
_BF16, _FP16 = "bf16", "fp16"
_INSTALL = 'pip install "tome-export[cpu]"'


def open_bundle(
    bundle: Bundle,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    onednn: bool = True,
    taps: bool = False,
    spin: bool = True,
) -> PaddleInference:
    """See `tome_export.runtimes.open_runtime`; `spin` means nothing here."""
    return PaddleInference(bundle, precision, device, threads, onednn, taps)


def probe() -> Probe:
    """Import Paddle (seconds) and say what it can do here."""
    try:
        paddle = _paddle()
    except MissingExtraError as error:
        return Probe("paddle", False, None, str(error))
    gpus = _gpu_count(paddle)
    return Probe("paddle", True, paddle.__version__, f"cpu, {gpus} cuda" if gpus else "cpu")


class PaddleInference(Runtime):
    """One predictor. On the CPU with oneDNN unless that cannot run the graph, which `notes` then says.

    precision: "fp32"; "bf16", which runs the fp32 model in bf16 where the processor has that, with oneDNN or
    not at all; "fp16", which does so on a GPU; or another that the bundle holds a Paddle model in.
    """

    name = "paddle"

    def __init__(
        self,
        bundle: Bundle,
        precision: str,
        device: str,
        threads: int | None,
        onednn: bool,
        taps: bool = False,
    ):
        super().__init__(bundle, device)
        kind, index = parse_device(device)
        threads = check_threads(threads)
        artifact = artifact_of(self.name, bundle, precision)
        program = bundle.file(artifact, ".json")
        if taps:
            program = bundle.debug_file(artifact, ".json")
            self._outputs += bundle.taps
        files = [str(program), str(bundle.file(artifact, ".pdiparams"))]
        paddle = _paddle()
        self.version = paddle.__version__
        bf16 = precision == _BF16
        if bf16:
            if kind != "cpu" or not onednn:
                raise RequestError("Paddle's bf16 is oneDNN's, on the CPU; use --precision fp32")
            _check_bf16(paddle, bundle.manifest)
        half = precision == _FP16
        if half and kind != "cuda":
            raise RequestError("Paddle makes fp16 on GPUs only; use --device cuda, or --precision fp32")

        if kind == "cuda":
            count = _gpu_count(paddle)
            if index >= count:
                raise RequestError(
                    f"Paddle sees {count} GPUs, so there is no {device}; use --device cpu, or "
                    "install paddlepaddle-gpu from Paddle's own package index"
                )
            if half:
                _check_fp16(paddle, bundle.manifest)
            configure = _on_gpu(index, paddle.inference.PrecisionType, half)
        else:
            configure = _on_cpu(threads, onednn, bf16)
        try:
            self._start(paddle, files, configure)
        except Exception as error:
            if kind == "cuda" or not onednn or bf16:
                raise _cannot_load(files, error) from error
            try:
                self._start(paddle, files, _on_cpu(threads, False))
            except Exception:  # then oneDNN was not the trouble
                raise _cannot_load(files, error) from error
            self.notes = (
                f"Paddle's oneDNN cannot run this graph, so it runs without, several times slower "
                f"({first_line(error)})",
            )
        self._check_outputs(len(self._out))

    def _start(self, paddle: Any, files: list[str], configure: Callable[[Any], None]) -> None:
        # Not enable_memory_optim(): it raises on models in Paddle 3's format.
        config = paddle.inference.Config(*files)
        config.disable_glog_info()
        configure(config)
        self._predictor = paddle.inference.create_predictor(config)
        self._in = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._out = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]
        # Only when the graph first runs does oneDNN refuse an operator's attributes.
        self._run(np.zeros((1, *self._input.shape[1:]), self._input.dtype))

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        self._in.copy_from_cpu(image)  # also sets the batch size
        self._predictor.run()
        return [handle.copy_to_cpu() for handle in self._out]

    def _close(self) -> None:
        self._in = self._out = self._predictor = None


def check_made(precision: str, manifest: Manifest) -> None:
    """See `tome_export.runtimes.check_made`."""
    (_check_fp16 if precision == _FP16 else _check_bf16)(_paddle(), manifest)


def _check_bf16(paddle: Any, manifest: Manifest) -> None:
    """Raises RequestError."""
    if not paddle.base.core.supports_bfloat16_fast_performance():
        raise RequestError("this processor has no bf16 that oneDNN can use; use --precision fp32")
    check_counts("Paddle", _BF16, manifest)


def _check_fp16(paddle: Any, manifest: Manifest) -> None:
    """Raises RequestError."""
    if not _gpu_count(paddle):
        raise RequestError("Paddle makes fp16 on GPUs, and sees none; use --precision fp32")
    check_counts("Paddle", _FP16, manifest)


def _paddle() -> Any:
    try:
        import paddle
        import paddle.inference
    except ModuleNotFoundError as error:
        if error.name != "paddle":  # it is there but needs something that is not
            raise MissingExtraError(f"Paddle cannot be imported ({error}): {_INSTALL}") from None
        raise MissingExtraError(f"the paddlepaddle package is not installed: {_INSTALL}") from None
    except Exception as error:  # a broken install can raise nearly anything
        raise MissingExtraError(
            f"Paddle is installed but cannot be imported ({first_line(error)}); reinstall it: {_INSTALL}"
        ) from None
    return paddle


def _gpu_count(paddle: Any) -> int:
    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def _on_cpu(threads: int | None, onednn: bool, bf16: bool = False) -> Callable[[Any], None]:
    def configure(config: Any) -> None:
        config.disable_gpu()
        # Paddle's own default is a single thread.
        config.set_cpu_math_library_num_threads(threads or _usable_cpus())
        if onednn:
            config.enable_mkldnn()
            # Keep the repacked weights of one batch size: by default each new size adds a copy of them all.
            config.set_mkldnn_cache_capacity(1)
            if bf16:
                config.enable_mkldnn_bfloat16()
        else:
            config.disable_mkldnn()  # on by default in 3.x

    return configure


def _on_gpu(index: int, types: Any, half: bool) -> Callable[[Any], None]:
    def configure(config: Any) -> None:
        config.enable_use_gpu(_GPU_POOL_MB, index, types.Half if half else types.Float32)

    return configure


def _cannot_load(files: list[str], error: Exception) -> BundleError:
    return BundleError(
        f"Paddle Inference cannot run {os.path.basename(files[0])} ({first_line(error)}); "
        "export the bundle again"
    )


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
