"""The runtimes a bundle can be run on, by name. Their engines are imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

from tome_export.bundle import Bundle
from tome_export.errors import RequestError
from tome_export.runtimes.base import Probe, Runtime

RUNTIMES = MappingProxyType(
    {
        "paddle": "tome_export.runtimes.paddle_inference",
        "onnx": "tome_export.runtimes.onnx_runtime",
    }
)
"""Runtime name -> module, each with `open_bundle` and `probe`."""

__all__ = ["RUNTIMES", "Probe", "Runtime", "open_runtime", "probe"]


def open_runtime(
    name: str,
    bundle: Bundle,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    onednn: bool = True,
    taps: bool = False,
) -> Runtime:
    """Open a bundle's model on a runtime.

    name: "paddle" or "onnx". device: "cpu", "cuda" or "cuda:N". threads: CPU threads inside an operator,
    None for all. onednn: Paddle on the CPU only; False is for comparisons, and several times slower. taps:
    run the variant of the graph that also returns, after the outputs, the tensors inside it that
    `bundle.taps` names, as far as it has them; slower, for finding out what a model did. Raises
    RequestError, MissingExtraError, BundleError.
    """
    return _module(name).open_bundle(
        bundle, precision=precision, device=device, threads=threads, onednn=onednn, taps=taps
    )


def probe(name: str) -> Probe:
    """Import a runtime's engine and say whether it can be used here. Raises RequestError: no such name."""
    return _module(name).probe()


def _module(name: str):
    if name not in RUNTIMES:
        raise RequestError(f"no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    return import_module(RUNTIMES[name])
