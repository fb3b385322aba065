"""The list of files, taken once and kept on disk: millions of names, of which memory holds a shard's.

`files` has each path below the source as the system's bytes, ended by a NUL, which no path holds. `offsets`
has where every 64th of them begins, as little-endian uint64, so that a shard is found without reading what is
before."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_export.errors import RequestError
from tome_export.evaluation.dataset import IMAGE_SUFFIXES, files_below

_FILES, _OFFSETS, _STRIDE = "files", "offsets", 64


@dataclass(frozen=True)
class Listing:
    """`count` paths in the folder `folder`; `ignored`: files that are not pictures by their ending."""

    folder: Path
    count: int
    ignored: int

    def paths(self, start: int, stop: int) -> list[str]:
        """The paths at positions `start` to `stop` - 1. Raises OSError."""
        first = start // _STRIDE
        offsets = np.fromfile(self.folder / _OFFSETS, "<u8", 1, offset=8 * first)
        skipped, wanted = start - first * _STRIDE, stop - start
        found: list[bytes] = []
        with open(self.folder / _FILES, "rb") as file:
            file.seek(int(offsets[0]))
            rest = b""
            while len(found) < skipped + wanted and (chunk := file.read(1 << 16)):
                *whole, rest = (rest + chunk).split(b"\0")
                found += whole
        return [os.fsdecode(path) for path in found[skipped : skipped + wanted]]


def take_listing(source: Path, folder: Path) -> Listing:
    """List the pictures below `source`, sorted, into files in `folder`. Raises RequestError."""
    count = ignored = at = 0
    offsets = array("Q")
    try:
        with open(folder / _FILES, "wb") as file:
            for path in files_below(source):
                if os.path.splitext(path)[1].lower() not in IMAGE_SUFFIXES:
                    ignored += 1
                    continue
                if count % _STRIDE == 0:
                    offsets.append(at)
                at += file.write(os.fsencode(path) + b"\0")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        with open(folder / _OFFSETS, "wb") as file:
            np.array(offsets, "<u8").tofile(file)
            os.fsync(file.fileno())
    except OSError as error:
        raise RequestError(f"{error.filename}: cannot be listed ({error.strerror})") from None
    if not count:
        raise RequestError(f"{source}: no pictures in it or below")
    return Listing(folder, count, ignored)
