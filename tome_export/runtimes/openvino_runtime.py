"""OpenVINO, from the openvino package, on the CPU. It reads the bundle's ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, MissingExtraError, RequestError
from tome_export.manifest import Manifest
from tome_export.runtimes import artifact_of
from tome_export.runtimes.base import Probe, Runtime, check_counts, check_threads, first_line, parse_device

_DEVICE = "CPU"
_BF16 = "bf16"
_INSTALL = 'pip install "tome-export[openvino]"'


def open_bundle(
    bundle: Bundle,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    onednn: bool = True,
    taps: bool = False,
    spin: bool = True,
) -> OpenVino:
    """See `tome_export.runtimes.open_runtime`; `onednn` and `spin` mean nothing here."""
    return OpenVino(bundle, precision, device, threads, taps)


def probe() -> Probe:
    """Import OpenVINO and say what it can do here."""
    try:
        openvino = _openvino()
        devices = openvino.Core().available_devices
    except MissingExtraError as error:
        return Probe("openvino", False, None, str(error))
    return Probe("openvino", True, _version(openvino), ", ".join(devices))


class OpenVino(Runtime):
    """One compiled model with a dynamic batch: one of a fixed batch was not measurably faster.

    precision: "fp32"; "bf16", which runs the fp32 model in bf16 where the processor has that; or another that
    the bundle holds an ONNX model in.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: str, device: str, threads: int | None, taps: bool = False):
        super().__init__(bundle, device)
        kind, _ = parse_device(device)
        if kind != "cpu":
            raise RequestError(
                f"OpenVINO runs on the CPU only here, so there is no {device}; use --device cpu, "
                "or --runtime onnx or paddle"
            )
        threads = check_threads(threads)
        path = bundle.file(artifact_of(self.name, bundle, precision), ".onnx")
        openvino = _openvino()
        self.version = _version(openvino)
        core = openvino.Core()
        if precision == _BF16:
            _check_bf16(core, bundle.manifest)
        # Left to itself, OpenVINO takes bf16 wherever the processor has it.
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == _BF16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self._request = self._start(core, path, bundle.taps if taps else (), options)

    def _start(self, core: Any, path: Path, taps: tuple[str, ...], options: dict[str, Any]) -> Any:
        try:
            model = core.read_model(path)
            made = {name for node in model.get_ops() for port in node.outputs() for name in port.get_names()}
            there = [name for name in taps if name in made]
            if there:
                model.add_outputs(there)
            compiled = core.compile_model(model, _DEVICE, options)
        except Exception as error:
            raise BundleError(
                f"OpenVINO cannot load {path.name} ({_cause(error)}); export the bundle again"
            ) from error
        self._outputs += tuple(there)
        self._check_outputs(len(compiled.outputs))
        return compiled.create_infer_request()

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        self._request.infer([image], share_inputs=True)
        return [
            self._request.get_output_tensor(index).data.copy()  # the next run writes there again
            for index in range(len(self._outputs))
        ]

    def _close(self) -> None:
        self._request = None


def check_made(precision: str, manifest: Manifest) -> None:
    """See `tome_export.runtimes.check_made`."""
    _check_bf16(_openvino().Core(), manifest)


def _check_bf16(core: Any, manifest: Manifest) -> None:
    if "BF16" not in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise RequestError("this processor has no bf16; use --precision fp32")
    check_counts("OpenVINO", _BF16, manifest)


def _cause(error: Exception) -> str:
    """OpenVINO's errors begin with where in its source they arose; the last line is more telling."""
    lines = [
        line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")
    ]
    return first_line(RuntimeError("\n".join(lines) or str(error)))


def _version(openvino: Any) -> str:
    """Without build number and branch: "2026.4.1"."""
    return openvino.__version__.partition("-")[0]


def _openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise MissingExtraError(f"OpenVINO cannot be imported ({error}): {_INSTALL}") from None
        raise MissingExtraError(f"the openvino package is not installed: {_INSTALL}") from None
    except Exception as error:  # a broken install can raise nearly anything
        raise MissingExtraError(
            f"OpenVINO is installed but cannot be imported ({first_line(error)}); reinstall it: {_INSTALL}"
        ) from None
    return openvino
