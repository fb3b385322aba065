"""What is asked of a model repository, checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tome_export import served
from tome_export.errors import RequestError


@dataclass(frozen=True)
class Serving:
    """How Triton is to serve a model. Raises RequestError for values that make no sense.

    name: of the tensor model; the others are NAME_jpeg, NAME_preprocess and NAME_postprocess. precision: of
    the ONNX model in the bundle. max_batch, preferred_batches: of the dynamic batcher, in images.
    max_delay_us: how long it may hold a request to fill a batch. instances: copies of the tensor model, each
    with memory of its own, on each GPU or on the CPU. preprocess_instances: processes that decode pictures.
    threads: CPU threads of an instance, None for all. gpu: run the tensor model on GPUs. tensorrt: there, by
    ONNX Runtime's TensorRT provider. top: classes in an answer.
    """

    name: str
    precision: str = "fp32"
    max_batch: int = 32
    preferred_batches: tuple[int, ...] = ()
    max_delay_us: int = 1000
    instances: int = 1
    preprocess_instances: int = 2
    threads: int | None = None
    gpu: bool = False
    tensorrt: bool = False
    top: int = 5

    def __post_init__(self) -> None:
        for message in self._wrong():
            raise RequestError(message)

    def _wrong(self) -> Iterator[str]:
        yield from served.wrong(self.name, self.max_batch)
        for size in self.preferred_batches:
            if not 1 <= size <= self.max_batch:
                yield f"--preferred-batch {size} is not between 1 and --max-batch {self.max_batch}"
        if self.max_delay_us < 0:
            yield f"--max-delay-us should be 0 or more microseconds, not {self.max_delay_us}"
        for option in ("instances", "preprocess_instances", "top"):
            if getattr(self, option) < 1:
                yield f"--{option.replace('_', '-')} should be at least 1, not {getattr(self, option)}"
        if self.threads is not None and self.threads < 1:
            yield f"--threads should be at least 1, not {self.threads}"
        if self.tensorrt and not self.gpu:
            yield "--tensorrt runs on GPUs; add --gpu"
        if self.precision == "int8" and self.gpu:
            yield (
                "the bundle's int8 model is made for CPUs: ONNX Runtime's CUDA and TensorRT have no kernels "
                "for its operators; leave out --gpu, or use --precision fp32 or fp16"
            )
