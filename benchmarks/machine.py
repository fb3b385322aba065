"""One line that says what a benchmark ran on."""

from __future__ import annotations

import platform
from pathlib import Path

from tome_export.manifest import Versions


def machine(threads: int) -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":")[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    versions = Versions.installed()
    return (
        f"{len(names) or '?'} cores of {names[0] if names else platform.processor()}, {threads} threads, "
        f"Paddle {versions.paddle}, ONNX Runtime {versions.onnxruntime}, Python {versions.python}"
    )
