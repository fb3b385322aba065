"""ONNX Runtime, from the onnxruntime or onnxruntime-gpu package."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, MissingExtraError, RequestError
from tome_export.runtimes import artifact_of
from tome_export.runtimes.base import Probe, Runtime, check_threads, first_line, parse_device

_ERRORS_ONLY = 3  # of ONNX Runtime's log severities
# Where an x86 processor has no VNNI, its fast product of uint8 and int8 saturates. With VNNI this would only
# be slower: 2.7x, int8 ViT-B/16 on a Xeon with AMX.
EXACT_INT8 = "session.x64quantprecision"
_SPINNING = "session.intra_op.allow_spinning"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_INSTALL = 'pip install "tome-export[onnx]"'


def open_bundle(
    bundle: Bundle,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    onednn: bool = True,
    taps: bool = False,
    spin: bool = True,
) -> OnnxRuntime:
    """See `tome_export.runtimes.open_runtime`; `onednn` means nothing here."""
    return OnnxRuntime(bundle, precision, device, threads, taps, spin)


def probe() -> Probe:
    """Import ONNX Runtime and say what it can do here."""
    try:
        onnxruntime = load_onnxruntime()
    except MissingExtraError as error:
        return Probe("onnx", False, None, str(error))
    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return Probe("onnx", True, onnxruntime.__version__, ", ".join(providers))


class OnnxRuntime(Runtime):
    """One session. On CUDA it is refused, not run on the CPU, if CUDA does not work."""

    name = "onnx"

    def __init__(
        self,
        bundle: Bundle,
        precision: str,
        device: str,
        threads: int | None,
        taps: bool = False,
        spin: bool = True,
    ):
        super().__init__(bundle, device)
        path = bundle.file(artifact_of(self.name, bundle, precision), ".onnx")
        onnxruntime = load_onnxruntime()
        self.version = onnxruntime.__version__
        model: Path | bytes = path
        if taps:
            from tome_export.onnx_taps import with_taps

            model = with_taps(path, bundle.taps)
        first = self._provider(onnxruntime, device)
        configure = _keep if spin else _sleep_when_waiting
        self._session = start_session(model, path.parent, device, threads, configure, first)
        self._input_name = self._session.get_inputs()[0].name
        self._output_names = [output.name for output in self._session.get_outputs()]
        if taps:
            self._outputs += tuple(self._output_names[len(self._outputs) :])
        self._check_outputs(len(self._output_names))

    def _provider(self, onnxruntime: Any, device: str) -> tuple[str, dict[str, str]] | None:
        """What comes before CUDA, with its options."""
        return None

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        return self._session.run(self._output_names, {self._input_name: image})

    def _close(self) -> None:
        self._session = None


def _keep(options: Any) -> None:
    """As they are."""


def _sleep_when_waiting(options: Any) -> None:
    options.add_session_config_entry(_SPINNING, "0")


def start_session(
    model: Path | bytes,
    folder: Path,
    device: str = "cpu",
    threads: int | None = None,
    configure: Callable[[Any], None] = _keep,
    first: tuple[str, dict[str, str]] | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` of a file, or of a serialised model whose weights are in `folder`.

    configure: may change the session's options. first: a provider that comes before CUDA on the GPU.

    Raises RequestError, MissingExtraError, BundleError.
    """
    kind, index = parse_device(device)
    threads = check_threads(threads)
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: one per physical core
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    configure(options)
    providers: list[Any] = ["CPUExecutionProvider"]
    if kind == "cuda":
        if CUDA not in onnxruntime.get_available_providers():
            raise RequestError(
                f"this ONNX Runtime has no CUDA, so there is no {device}; use --device cpu, or pip uninstall "
                'onnxruntime and pip install "tome-export[onnx-gpu]"'
            )
        # The CPU stays last for operators that only it has, such as shape arithmetic. Without TF32, which has
        # the precision of fp16.
        providers.insert(0, (CUDA, {"device_id": str(index), "use_tf32": "0"}))
        if first is not None:
            providers.insert(0, (first[0], {"device_id": str(index)} | first[1]))
    if not has_vnni(_cpuinfo()):
        options.add_session_config_entry(EXACT_INT8, "1")
    if isinstance(model, bytes):
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:
        name = "the graph" if isinstance(model, bytes) else model.name
        raise BundleError(
            f"ONNX Runtime cannot load {name} ({first_line(error)}); export the bundle again"
        ) from error
    wanted = CUDA if first is None else first[0]
    if kind == "cuda" and wanted not in session.get_providers():
        libraries = "CUDA or cuDNN" if first is None else "TensorRT"
        raise RequestError(
            f"ONNX Runtime could not start {device} (its {libraries} libraries are "
            "missing or of another version); use --device cpu"
        )
    return session


def has_vnni(cpuinfo: str) -> bool:
    """Whether Linux's /proc/cpuinfo says so. "" where there is none: not known, so no."""
    return re.search(r"^flags\b.*\bavx(512)?_vnni\b", cpuinfo, re.MULTILINE) is not None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def load_onnxruntime() -> Any:
    """The onnxruntime package. Raises MissingExtraError."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise MissingExtraError(f"ONNX Runtime cannot be imported ({error}): {_INSTALL}") from None
        raise MissingExtraError(f"the onnxruntime package is not installed: {_INSTALL}") from None
    except Exception as error:  # a broken install can raise nearly anything
        raise MissingExtraError(
            f"ONNX Runtime is installed but cannot be imported ({first_line(error)}); "
            f"reinstall it: {_INSTALL}"
        ) from None
    if not hasattr(onnxruntime, "InferenceSession"):
        # Removing one of onnxruntime and onnxruntime-gpu takes the files of both and leaves an empty package.
        raise MissingExtraError(f"ONNX Runtime is installed but empty; reinstall it: {_INSTALL}")
    return onnxruntime
