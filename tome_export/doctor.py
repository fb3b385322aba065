"""What this machine has and lacks. Data only: the command line prints it.

Importing the engines takes seconds and makes them talk: call under `quiet`.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tome_export.runtimes import RUNTIMES, probe

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 12)

# Kernel name of a CPU feature -> what it is called here. Each makes some precision fast.
_X86_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
}
_ARM_FEATURES = {"asimd": "neon", "asimddp": "dotprod", "bf16": "bf16", "i8mm": "i8mm", "sve": "sve"}

# What it is imported as, distributions that bring it (they overwrite one another), extra, what it is for.
_PACKAGES = (
    ("numpy", ("numpy",), None, "always"),
    ("pillow", ("pillow",), None, "always"),
    ("paddle", ("paddlepaddle", "paddlepaddle-gpu"), "cpu", "export and Paddle Inference"),
    ("paddle2onnx", ("paddle2onnx",), "cpu", "export to ONNX"),
    ("onnx", ("onnx",), "cpu", "export to ONNX"),
    ("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), "onnx", "ONNX Runtime"),
    ("openvino", ("openvino",), "openvino", "OpenVINO"),
    ("tensorrt", ("tensorrt-cu12-bindings", "tensorrt-cu13-bindings"), "tensorrt", "TensorRT, on GPUs"),
    ("ray", ("ray",), "serve", "serve, and predict-many"),
)


@dataclass(frozen=True)
class Check:
    """One finding. `group`: "system", "package", "runtime" or "gpu". `ok`: None where there is no right or
    wrong. `value`: what was found. `advice`: what to do, "" if nothing."""

    group: str
    name: str
    ok: bool | None
    value: str
    advice: str = ""


def diagnose() -> list[Check]:
    """Look at Python, the CPU, the packages, the runtimes and the GPUs. Never raises for what it finds."""
    return [*_system(), *map(_package, _PACKAGES), *map(_runtime, RUNTIMES), *_gpus()]


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """The features that matter here, from the text of Linux's /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        names = {"flags": _X86_FEATURES, "Features": _ARM_FEATURES}.get(key.strip())
        if names is not None:
            present = set(value.split())
            return tuple(name for flag, name in names.items() if flag in present)
    return ()


def _system() -> list[Check]:
    version = platform.python_version()
    supported = OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON
    wanted = "{}.{} to {}.{}".format(*OLDEST_PYTHON, *NEWEST_PYTHON)
    checks = [
        Check("system", "python", supported, version, "" if supported else f"use Python {wanted}"),
        Check("system", "platform", None, platform.platform()),
    ]
    try:
        features = cpu_features(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:  # not Linux
        checks.append(Check("system", "cpu", None, f"{platform.machine()}, features unknown"))
        return checks
    slow = platform.machine() in ("x86_64", "AMD64") and "avx2" not in features
    checks.append(
        Check(
            "system",
            "cpu",
            not slow,
            " ".join((platform.machine(), *features)),
            "Paddle's builds need AVX; expect errors or poor speed" if slow else "",
        )
    )
    return checks


def _package(package: tuple[str, tuple[str, ...], str | None, str]) -> Check:
    name, distributions, extra, purpose = package
    found = {}
    for distribution in distributions:
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    if not found:
        target = f'"tome-export[{extra}]"' if extra else name
        return Check("package", name, False, "not installed", f"for {purpose}: pip install {target}")
    value = ", ".join(f"{version}" if key == name else f"{version} ({key})" for key, version in found.items())
    if len(found) > 1:
        return Check(
            "package",
            name,
            False,
            value,
            f"these overwrite one another: pip uninstall {' '.join(found)}, then install the one you want",
        )
    return Check("package", name, True, value)


def _runtime(name: str) -> Check:
    result = probe(name)
    if not result.usable:
        return Check("runtime", name, False, "not usable", result.detail)
    return Check("runtime", name, True, f"{result.version} on {result.detail}")


def _gpus() -> list[Check]:
    """GPUs as the usable engines see them."""
    checks = []
    if probe("paddle").usable:
        import paddle

        count = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
        built = "CUDA" if paddle.is_compiled_with_cuda() else "CPU"
        checks.append(Check("gpu", "paddle", None, f"{count} GPUs ({built} build)"))
    if probe("onnx").usable:
        import onnxruntime

        found = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        checks.append(Check("gpu", "onnx", None, f"{'CUDA' if found else 'CPU'} build"))
    return checks
