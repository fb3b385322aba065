"""Where files that can be had again are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The folder: $TOME_EXPORT_CACHE, else the platform's place for caches."""
    if asked := os.environ.get("TOME_EXPORT_CACHE"):
        return Path(asked).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "tome-export" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tome-export"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tome-export"
