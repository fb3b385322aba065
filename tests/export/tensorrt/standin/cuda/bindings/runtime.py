"""Stands in for cuda-bindings where there is no GPU: its calls and their results, on this machine's memory.

A stream keeps what it is given and does it when it is waited for, later than a GPU would: what is read too
early has not been computed, and what is freed or changed too early shows.
"""

import ctypes
from types import SimpleNamespace

OK, INVALID, NO_MEMORY = 0, 1, 2
MEMORY = 1 << 30

cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
_buffers, _streams = {}, {}


def cudaGetDeviceCount():
    return OK, 2


def cudaSetDevice(index):
    return (OK if index in (0, 1) else INVALID,)


def cudaGetDeviceProperties(index):
    return OK, SimpleNamespace(name=b"Stand-in", major=8, minor=9)


def cudaGetErrorString(error):
    return OK, {INVALID: b"invalid argument", NO_MEMORY: b"out of memory"}[error]


def cudaStreamCreate():
    _streams[len(_streams) + 1] = []
    return OK, len(_streams)


def cudaStreamDestroy(stream):
    _streams[stream] = None
    return (OK,)


def cudaMalloc(size):
    if size > MEMORY:
        return NO_MEMORY, None
    buffer = ctypes.create_string_buffer(size)
    _buffers[ctypes.addressof(buffer)] = buffer
    return OK, ctypes.addressof(buffer)


def cudaFree(address):
    return (OK if _buffers.pop(address, None) is not None else INVALID,)


def cudaMemcpyAsync(to, origin, size, kind, stream):
    device = to if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else origin
    if device not in _buffers or size > len(_buffers[device]):
        return (INVALID,)
    enqueue(stream, lambda: ctypes.memmove(to, origin, size))
    return (OK,)


def cudaStreamSynchronize(stream):
    todo, _streams[stream] = _streams[stream], []
    for each in todo:
        each()
    return (OK,)


def enqueue(stream, work):
    """For the stand-in of TensorRT."""
    _streams[stream].append(work)


def held():
    """Bytes that were allocated and not freed."""
    return sum(len(buffer) for buffer in _buffers.values())
