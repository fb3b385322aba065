"""Make a folder appear complete or not at all.

It is built as a hidden sibling of its destination, on the same file system, and renamed into place. A killed
process leaves only such a sibling, which `clear_stale` recognises by its name, lock and process number.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PARTIAL, REPLACED = "partial", "replaced"
_YOUNG_SECONDS = 60


@contextlib.contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """A new hidden sibling of `out` to write in; locked, and removed at the end unless `swap_in` moved it.
    Missing parents of `out` are created, and what killed processes left is cleared. Raises OSError."""
    with terminate_as_exit():
        out.parent.mkdir(parents=True, exist_ok=True)
        clear_stale(out)
        folder = sibling(out, PARTIAL)
        folder.mkdir()
        try:
            with locked(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def swap_in(folder: Path, out: Path) -> None:
    """Rename `folder` to `out`. A folder already there is set aside first, and put back if that fails; it is
    removed only once the new one is in its place. Raises OSError."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)
    if not out.exists():
        folder.rename(out)
    else:
        aside = sibling(out, REPLACED)
        with locked(out):
            try:
                out.rename(aside)
                folder.rename(out)
            except BaseException:
                if aside.exists() and not out.exists():
                    aside.rename(out)
                raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync(out.parent)


def sibling(out: Path, kind: str) -> Path:
    """A hidden name beside `out` that says whose it is. Long names are cut; the hash keeps them apart."""
    tag = hashlib.sha256(os.fsencode(out.name)).hexdigest()[:8]
    return out.with_name(f".{out.name[:40]}.{tag}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


def clear_stale(out: Path) -> None:
    """Remove what killed exports to `out` left; put back a bundle that one had set aside and not replaced."""
    prefix = sibling(out, "").name.rsplit("-", 2)[0]
    with contextlib.suppress(OSError):
        for path in sorted(out.parent.iterdir()):
            if not path.name.startswith(prefix) or path.is_symlink() or not path.is_dir():
                continue
            kind, _, owner = path.name[len(prefix) :].partition("-")
            if kind not in (PARTIAL, REPLACED) or not _is_abandoned(path, owner):
                continue
            if kind == REPLACED and not out.exists():
                path.rename(out)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path, owner: str) -> bool:
    """Whether no process writes this folder any more: nobody holds its lock, and its process is gone or it is
    too old to be about to be locked. (A process number alone misleads between containers, or once reused.)"""
    if fcntl is None:
        return not _is_alive(owner)
    try:
        with locked(path, strict=True):
            return not _is_alive(owner) or time.time() - path.stat().st_mtime > _YOUNG_SECONDS
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return not _is_alive(owner)


def _is_alive(owner: str) -> bool:
    try:
        pid = int(owner.partition("-")[0])
        if os.name == "posix":
            os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        return True  # not ours to judge


@contextlib.contextmanager
def locked(folder: Path, strict: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on the folder. Unless `strict`, do without where there are no locks."""
    descriptor = None
    try:
        if fcntl is not None:
            try:
                descriptor = os.open(folder, os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if strict:
                    raise
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def terminate_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack (exit status 128 + n) instead of ending the process at once."""
    previous = {}

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def renew_handlers() -> None:
    """Call after importing Paddle: its crash reporter takes SIGTERM from whoever handled it."""
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and callable(signal.getsignal(number)):
                signal.signal(number, signal.getsignal(number))


def _sync(path: Path) -> None:
    """Ask the system to put a file, or a folder's entries, on disk: a crash must not leave a finished name on
    unfinished contents. Folders cannot be synced everywhere."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
