"""CUDA, as far as a runtime needs it: which GPU this is, and memory on it. NVIDIA's cuda-bindings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tome_export.errors import GpuError, MissingExtraError, RequestError
from tome_export.runtimes.base import first_line

INSTALL = 'pip install "tome-export[tensorrt]"'


@dataclass(frozen=True)
class Gpu:
    """index: as CUDA counts. name: such as "NVIDIA L4". capability: compute capability, such as "8.9"."""

    index: int
    name: str
    capability: str


class Cuda:
    """One GPU, a stream on it, and buffers by name. For one thread at a time."""

    def __init__(self, index: int):
        """Raises RequestError if there is no such GPU, MissingExtraError without cuda-bindings."""
        self._api = _bindings()
        try:
            count = self._ask(self._api.cudaGetDeviceCount())
        except GpuError as error:
            raise RequestError(f"no GPU can be used here ({error}); use another runtime on the CPU") from None
        if index >= count:
            raise RequestError(f"CUDA sees {count} GPUs, so there is no cuda:{index}")
        self._index = index
        self._ask(self._api.cudaSetDevice(index))
        found = self._ask(self._api.cudaGetDeviceProperties(index))
        self.gpu = Gpu(index, found.name.decode(), f"{found.major}.{found.minor}")
        self._stream = self._ask(self._api.cudaStreamCreate())
        self._buffers: dict[str, int] = {}

    @property
    def stream(self) -> int:
        """The stream's handle, for TensorRT."""
        return int(self._stream)

    def use(self) -> None:
        """Make this the GPU of the calling thread."""
        self._ask(self._api.cudaSetDevice(self._index))

    def allocate(self, name: str, size: int) -> int:
        """Address of a new buffer of `size` bytes. Raises GpuError."""
        self._buffers[name] = int(self._ask(self._api.cudaMalloc(size)))
        return self._buffers[name]

    def upload(self, name: str, array: np.ndarray) -> None:
        """Start copying a contiguous array into the buffer; it has to live until `download` returns."""
        self._copy(self._buffers[name], array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def download(self, names: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
        """Wait for the stream, and fill contiguous arrays from these buffers."""
        for name, array in zip(names, arrays, strict=True):
            self._copy(array.ctypes.data, self._buffers[name], array.nbytes, "cudaMemcpyDeviceToHost")
        self._ask(self._api.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """Free buffers and stream."""
        for address in self._buffers.values():
            self._api.cudaFree(address)
        self._buffers.clear()
        self._api.cudaStreamDestroy(self._stream)

    def _copy(self, to: int, origin: int, size: int, kind: str) -> None:
        direction = getattr(self._api.cudaMemcpyKind, kind)
        self._ask(self._api.cudaMemcpyAsync(to, origin, size, direction, self._stream))

    def _ask(self, result: tuple[Any, ...]) -> Any:
        """The value of a call, which returns (error, value...). Raises GpuError."""
        error, *values = result
        if int(error) != 0:
            _, text = self._api.cudaGetErrorString(error)
            raise GpuError(text.decode())
        return values[0] if values else None


def _bindings() -> Any:
    try:
        from cuda.bindings import runtime
    except ModuleNotFoundError:
        raise MissingExtraError(f"the cuda-bindings package is not installed: {INSTALL}") from None
    except Exception as error:  # a broken install can raise nearly anything
        raise MissingExtraError(
            f"cuda-bindings cannot be imported ({first_line(error)}); reinstall it: {INSTALL}"
        ) from None
    return runtime
