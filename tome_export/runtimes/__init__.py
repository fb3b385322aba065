"""The runtimes a bundle can be run on, by name. Their engines are imported only when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, RequestError
from tome_export.manifest import Artifact, Manifest
from tome_export.runtimes.base import Probe, Runtime


@dataclass(frozen=True)
class Engine:
    """module: has `open_bundle` and `probe`. reads: format of the artifact that it runs. makes: precisions
    that it makes of the fp32 artifact by itself; the module then has `check_made(precision, manifest)`.
    devices: the kinds that it runs on. cannot: precisions of artifacts that it does not run."""

    module: str
    reads: str
    makes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    cannot: tuple[str, ...] = ()


RUNTIMES = MappingProxyType(
    {
        "paddle": Engine("tome_export.runtimes.paddle_inference", "paddle", makes=("bf16", "fp16")),
        "onnx": Engine("tome_export.runtimes.onnx_runtime", "onnx"),
        "openvino": Engine(
            "tome_export.runtimes.openvino_runtime", "onnx", makes=("bf16",), devices=("cpu",)
        ),
        "tensorrt": Engine(
            "tome_export.runtimes.tensorrt_runtime", "onnx", devices=("cuda",), cannot=("int8",)
        ),
        "onnx-tensorrt": Engine(
            "tome_export.runtimes.onnx_tensorrt", "onnx", devices=("cuda",), cannot=("int8",)
        ),
    }
)
"""Runtimes by name. The first that reads a format is the one that bears its name."""

__all__ = [
    "RUNTIMES",
    "Engine",
    "Probe",
    "Runtime",
    "artifact_of",
    "check_made",
    "check_name",
    "open_runtime",
    "probe",
]


def open_runtime(
    name: str,
    bundle: Bundle,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    onednn: bool = True,
    taps: bool = False,
    spin: bool = True,
) -> Runtime:
    """Open a bundle's model on a runtime.

    name: one of RUNTIMES. precision: see `artifact_of`. device: "cpu", "cuda" or "cuda:N".
    threads: CPU threads inside an operator, None for all. onednn: Paddle on the CPU only; False is for
    comparisons, and several times slower. taps: run the variant of the graph that also returns, after the
    outputs, the tensors inside it that `bundle.taps` names, as far as it has them; slower, for finding out
    what a model did. spin: ONNX Runtime only; its threads wait for one another without giving up their
    cores, which is faster alone, and slower where other processes need the cores, as in a server.

    Raises RequestError, MissingExtraError, BundleError.
    """
    return _module(name).open_bundle(
        bundle, precision=precision, device=device, threads=threads, onednn=onednn, taps=taps, spin=spin
    )


def probe(name: str) -> Probe:
    """Import a runtime's engine and say whether it can be used here. Raises RequestError: no such name."""
    return _module(name).probe()


def artifact_of(name: str, bundle: Bundle, precision: str = "fp32") -> Artifact:
    """The artifact that this runtime runs at this precision: the bundle's own of that precision, or the fp32
    one if the engine makes the precision of it. Raises RequestError, BundleError."""
    engine = RUNTIMES[check_name(name)]
    if precision in engine.cannot:
        raise BundleError(f"{name} cannot run the bundle's {precision} model, which is made for CPUs")
    return bundle.artifact(engine.reads, "fp32" if precision in engine.makes else precision)


def check_made(name: str, precision: str, manifest: Manifest) -> None:
    """Raises RequestError if this runtime's engine cannot make this precision of this model here,
    MissingExtraError without the engine. Nothing is checked where it does not make it."""
    if precision in RUNTIMES[check_name(name)].makes:
        _module(name).check_made(precision, manifest)


def check_name(name: str) -> str:
    """`name`, if there is such a runtime. Raises RequestError."""
    if name not in RUNTIMES:
        raise RequestError(f"no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    return name


def _module(name: str):
    return import_module(RUNTIMES[check_name(name)].module)
