"""Paddle Inference, the `paddle.inference` module of the paddlepaddle or paddlepaddle-gpu package."""

from __future__ import annotations

import sys
import warnings

import numpy as np
from bundle import Bundle, EngineError, RequestError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a compiler cache that nobody needs here
    import paddle
    import paddle.inference

_GPU_POOL_MB = 256


class Engine:
    """threads: of the CPU, inside an operator. Raises RequestError, EngineError."""

    version = paddle.__version__

    def __init__(self, bundle: Bundle, threads: int, gpu: bool):
        if gpu and not (paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count()):
            raise RequestError("this Paddle sees no GPU; leave out --gpu, or install paddlepaddle-gpu")
        self._bundle = bundle
        name = bundle.files[".json"].name
        try:
            self._start(threads, gpu, onednn=True)
        except Exception as error:
            try:
                if gpu:
                    raise
                self._start(threads, gpu, onednn=False)
            except Exception:  # then oneDNN was not the trouble
                raise EngineError(f"Paddle Inference cannot run {name} ({error})") from error
            note = "oneDNN cannot run this graph, so it runs without, several times slower"
            print(f"note: {note} ({' '.join(str(error).split())[:400]})", file=sys.stderr)

    def _start(self, threads: int, gpu: bool, onednn: bool) -> None:
        # Not enable_memory_optim(): it raises on models in Paddle 3's format.
        files = self._bundle.files
        config = paddle.inference.Config(str(files[".json"]), str(files[".pdiparams"]))
        config.disable_glog_info()
        if gpu:
            config.enable_use_gpu(_GPU_POOL_MB, 0)
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads)
            if onednn:
                config.enable_mkldnn()
                config.set_mkldnn_cache_capacity(1)  # else it keeps a copy of the weights for each batch size
            else:
                config.disable_mkldnn()
        self._predictor = paddle.inference.create_predictor(config)
        names = self._predictor.get_output_names()
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(names[self._bundle.output])
        # Only when the graph first runs does oneDNN refuse an operator's attributes.
        side = self._bundle.recipe.crop
        self._run(np.zeros((1, 3, side, side), np.float32))

    def _run(self, image: np.ndarray) -> np.ndarray:
        self._input.copy_from_cpu(image)  # also sets the batch size
        self._predictor.run()
        return self._output.copy_to_cpu()

    def run(self, image: np.ndarray) -> np.ndarray:
        """float32 `[n, 3, crop, crop]` -> logits, float32 `[n, classes]`. Raises EngineError."""
        try:
            return self._run(image)
        except Exception as error:
            raise EngineError(f"Paddle Inference failed ({error})") from error
