"""The processes that came of this one, to know when they are gone. On Linux; elsewhere there seem to be
none."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

Process = tuple[int, str]
"""Number, and when it started: numbers are given out again."""


def descendants() -> set[Process]:
    """Children of this process, theirs, and so on."""
    everyone = _everyone()
    found: set[Process] = set()
    parents = {os.getpid()}
    while parents:
        children = {
            process for process, parent in everyone.items() if parent in parents and process not in found
        }
        found |= children
        parents = {number for number, _ in children}
    return found


def wait_until_gone(processes: set[Process], seconds: float) -> None:
    """Wait, and kill what is left then."""
    deadline = time.monotonic() + seconds
    while left := processes & _everyone().keys():
        if time.monotonic() > deadline:
            for number, _ in left:
                try:
                    os.kill(number, signal.SIGKILL)
                except OSError:
                    pass
            return
        time.sleep(0.05)


def _everyone() -> dict[Process, int]:
    """Every process that is not a zombie, and its parent's number."""
    found: dict[Process, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(errors="replace")
        except OSError:  # gone meanwhile
            continue
        fields = text.rpartition(")")[2].split()  # a name may hold spaces and brackets
        if fields[0] not in "ZX":
            found[int(path.parent.name), fields[19]] = int(fields[1])
    return found
