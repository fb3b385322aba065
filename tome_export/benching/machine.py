"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from tome_export.manifest import Versions


@dataclass(frozen=True)
class Machine:
    """processor: its name. cores: that this process may use."""

    processor: str
    cores: int
    platform: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(_processor(), usable, platform.platform(), platform.python_version())

    def __str__(self) -> str:
        return f"{self.cores} {'core' if self.cores == 1 else 'cores'} of {self.processor}"


def machine(threads: int) -> str:
    """One line."""
    versions = Versions.installed()
    return (
        f"{Machine.here()}, {threads} threads, "
        f"Paddle {versions.paddle}, ONNX Runtime {versions.onnxruntime}, Python {versions.python}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
