"""Memory shared by an evaluation and its worker processes: pictures cross it without being copied.

It is divided into slots. A slot holds a note (the picture's path, later the error if there is one) and, for
each recipe, the finished float32 `[3, crop, crop]`. For one recipe the pictures of all slots lie side by
side, so consecutive slots are a batch as they stand.

The memory is an anonymous file handed on as a descriptor: no name, nothing left behind by a killed process,
and none of the limits that containers put on /dev/shm.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Sequence

import numpy as np

from tome_export.preprocess import Preprocess

NOTE_BYTES = 8192
_HEAD = struct.Struct("<III")  # state, worker's process number, length of the text
_ALIGN = 4096
QUEUED, TAKEN, READY, FAILED = range(4)

MAX_TEXT = NOTE_BYTES - _HEAD.size
"""Bytes of the longest path or message; paths that systems open are half as long."""


class Slots:
    """`count` slots in the file `descriptor`; `images[k][slot]` is the picture by recipe k."""

    def __init__(self, descriptor: int, count: int, recipes: Sequence[Preprocess]):
        self._map = mmap.mmap(descriptor, _size(count, recipes))
        self.images: list[np.ndarray] = []
        at = count * NOTE_BYTES
        for recipe in recipes:
            shape = (count, 3, recipe.crop, recipe.crop)
            self.images.append(np.ndarray(shape, np.float32, self._map, at))
            at += _image_bytes(count, recipe)

    def write_note(self, slot: int, state: int, text: bytes = b"") -> None:
        """state: QUEUED, with the path, or FAILED, with the reason."""
        text = text[:MAX_TEXT]
        at = slot * NOTE_BYTES
        self._map[at + _HEAD.size : at + _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._map, at, state, 0, len(text))

    def read_note(self, slot: int) -> tuple[int, int, bytes]:
        """(state, process number of the worker that took it or 0, text)."""
        at = slot * NOTE_BYTES
        state, worker, length = _HEAD.unpack_from(self._map, at)
        return state, worker, self._map[at + _HEAD.size : at + _HEAD.size + length]

    def take(self, slot: int) -> bytes:
        """Say that this process works on the slot; returns the path."""
        _, _, path = self.read_note(slot)
        _HEAD.pack_into(self._map, slot * NOTE_BYTES, TAKEN, os.getpid(), len(path))
        return path

    def finish(self, slot: int) -> None:
        """Say that the slot's pictures are in place."""
        _HEAD.pack_into(self._map, slot * NOTE_BYTES, READY, 0, 0)


def shared_file(count: int, recipes: Sequence[Preprocess]) -> int:
    """Descriptor of a new anonymous file of the right size (POSIX). Raises OSError."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tome-export")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _size(count, recipes))
    return descriptor


def _size(count: int, recipes: Sequence[Preprocess]) -> int:
    return count * NOTE_BYTES + sum(_image_bytes(count, recipe) for recipe in recipes)


def _image_bytes(count: int, recipe: Preprocess) -> int:
    size = count * 3 * recipe.crop * recipe.crop * 4
    return -(-size // _ALIGN) * _ALIGN
