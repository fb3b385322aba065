"""A zip file's members, checked before any is opened. Nothing is ever extracted to disk."""

import stat
import zipfile
from typing import BinaryIO

from tome_core.checkpoints.limits import MAX_DIRECTORY, Refused, damaged, shown, unsafe

_LOCAL_HEADER = 30  # bytes, without the name


class _Careful:
    """The file as zipfile sees it: no single read beyond MAX_DIRECTORY, so a huge directory is not loaded."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, n: int = -1) -> bytes:
        rest = max(self._size - self._file.tell(), 0)
        n = rest if n is None or n < 0 else n
        if n > MAX_DIRECTORY:
            raise unsafe(f"the zip claims a directory of {n >> 20} MiB")
        return self._file.read(n)


class Zip:
    """An open zip file. `sizes` maps each member's name to its unpacked size in bytes."""

    def __init__(self, file: BinaryIO, size: int, compressed: bool):
        """`compressed` allows deflated members next to stored ones."""
        self._zip = zipfile.ZipFile(_Careful(file, size))
        self._infos = {}
        methods = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} if compressed else {zipfile.ZIP_STORED}
        for info in self._zip.infolist():
            _check(info, methods)
            if info.filename in self._infos:
                raise unsafe(f"the zip holds {shown(info.filename)} twice")
            self._infos[info.filename] = info
        end = self._zip.start_dir
        for info in sorted(self._infos.values(), key=lambda i: i.header_offset, reverse=True):
            if info.header_offset < 0 or info.header_offset + _LOCAL_HEADER + info.compress_size > end:
                raise damaged("refused: the zip's members overlap or reach outside it")
            end = info.header_offset
        self.sizes = {name: info.file_size for name, info in self._infos.items()}

    def open(self, name: str) -> BinaryIO:
        """A stream over one member; reading it to the end checks its checksum."""
        return self._zip.open(self._infos[name])

    def read(self, name: str, limit: int) -> bytes:
        """A whole member of at most `limit` bytes."""
        if self.sizes[name] > limit:
            raise unsafe(f"{shown(name)} in the zip is larger than {limit} bytes")
        with self.open(name) as stream:
            return stream.read()


def _check(info: zipfile.ZipInfo, methods: set[int]) -> None:
    name = info.filename
    parts = name.replace("\\", "/").split("/")
    if name != info.orig_filename or name.startswith("/") or ".." in parts or ":" in parts[0] or "\\" in name:
        raise unsafe(f"the zip holds a member with the path {shown(name)}")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise unsafe(f"{shown(name)} in the zip is a link or a folder")
    if info.flag_bits & 0x1:
        raise Refused(f"{shown(name)} in the zip is encrypted; save it without a password")
    if info.compress_type not in methods:
        raise unsafe(f"{shown(name)} in the zip is compressed in an unexpected way")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise damaged(f"refused: the zip lies about the size of {shown(name)}")
