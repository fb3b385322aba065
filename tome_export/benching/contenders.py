"""What takes part in a benchmark: models on runtimes, and what each is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tome_export.bundle import Bundle
from tome_export.errors import BundleError, RequestError
from tome_export.manifest import Artifact, TensorInfo
from tome_export.runtimes import RUNTIMES, Runtime, artifact_of, check_made, check_name, open_runtime, probe
from tome_export.runtimes.base import parse_device


@dataclass(frozen=True)
class Model:
    """A bundle under the name that the tables call it by. foreign: an ONNX file of somebody else's, dressed
    as a bundle: nothing is known of its multiply-adds."""

    name: str
    bundle: Bundle
    foreign: bool = False

    @property
    def macs(self) -> int | None:
        """Multiply-adds per image, with merging."""
        return None if self.foreign else self.bundle.manifest.tome.macs.tome


@dataclass(frozen=True)
class Contender:
    """A model on a runtime. against: position, among the contenders, of the one it is compared with."""

    model: Model
    runtime: str
    precision: str
    against: int | None = None

    @property
    def name(self) -> str:
        return f"{self.model.name} {self.runtime} {self.precision}"

    def open(self, device: str, threads: int | None) -> Runtime:
        return open_runtime(
            self.runtime, self.model.bundle, precision=self.precision, device=device, threads=threads
        )


def line_up(
    model: Model,
    baseline: Model | None,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str],
    device: str = "cpu",
) -> tuple[list[Contender], list[str]]:
    """Who takes part, baselines last, and what is said about who does not.

    baseline: each contender is compared with it on its own runtime and at its own precision, where it has
    those; else in fp32, and where its runtime cannot read it, on the first that can. None: all are compared
    with the first. runtimes: None for all that are installed, run on `device` and can read the bundle; a
    named one must.

    Raises RequestError, BundleError, MissingExtraError.
    """
    own, notes = [], []
    kind, _ = parse_device(device)
    here = [name for name, engine in RUNTIMES.items() if kind in engine.devices]
    for name in dict.fromkeys(runtimes if runtimes is not None else here):
        check_name(name)
        if runtimes is None and not (found := probe(name)).usable:
            notes.append(f"without {name}: {found.detail}")
            continue
        for precision in dict.fromkeys(precisions):
            try:
                artifact_of(name, model.bundle, precision)
                check_made(name, precision, model.bundle.manifest)
                own.append(Contender(model, name, precision))
            except BundleError:
                if runtimes is not None:
                    raise
            except RequestError as error:
                if runtimes is not None:
                    raise
                notes.append(f"without {name} {precision}: {error}")
    if not own:
        raise RequestError(
            f"nothing here runs {model.name} in {', '.join(precisions)}; tome-export doctor says what can"
        )
    if baseline is None:
        return [replace(each, against=0 if index else None) for index, each in enumerate(own)], notes
    rivals = [_rival(each, baseline, [other.runtime for other in own]) for each in own]
    unique = [rival for index, rival in enumerate(rivals) if rival not in rivals[:index]]
    own = [
        replace(each, against=len(own) + unique.index(rival)) for each, rival in zip(own, rivals, strict=True)
    ]
    return [*own, *unique], notes


def _rival(own: Contender, baseline: Model, runtimes: Sequence[str]) -> Contender:
    tries = [(own.runtime, own.precision), (own.runtime, "fp32"), *((name, "fp32") for name in runtimes)]
    for runtime, precision in [*tries, ("onnx", "fp32")]:
        try:
            artifact_of(runtime, baseline.bundle, precision)
            check_made(runtime, precision, baseline.bundle.manifest)
            return Contender(baseline, runtime, precision)
        except RequestError:
            continue
    raise RequestError(f"{baseline.name} holds no fp32 model that one of {', '.join(runtimes)} reads")


def model_of(bundle: Bundle) -> Model:
    """Under the name of its folder."""
    return Model(bundle.path.resolve().name, bundle)


def onnx_file(path: Path, like: Bundle) -> Model:
    """An ONNX file that takes the same image, whatever it answers. Raises BundleError, RequestError."""
    if not path.is_file():
        raise RequestError(f"{path}: no such file; --against takes r0, a bundle or an .onnx file")
    inputs, outputs = _signature(path)
    wanted = like.manifest.inputs[0]
    if len(inputs) != 1 or inputs[0][1:] != wanted.shape[1:]:
        raise RequestError(
            f"{path}: takes {', '.join(str(list(shape)) for shape in inputs)}, and the bundle one image, "
            f"{list(wanted.shape)}"
        )
    if inputs[0][0] != -1:
        raise RequestError(f"{path}: takes batches of {inputs[0][0]} only; export it with a dynamic batch")
    manifest = replace(
        like.manifest,
        outputs=tuple(TensorInfo(name, "float32", (-1, 1)) for name in outputs),
        artifacts=(Artifact("onnx", "fp32", {path.name: ""}),),
    )
    return Model(path.name, Bundle(path.parent, manifest), foreign=True)


def _signature(path: Path) -> tuple[list[tuple[int, ...]], list[str]]:
    """Shapes of the graph's inputs, -1 for what is not fixed, and names of its outputs."""
    from tome_export.onnx_shell import load_shell

    graph = load_shell(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    shapes = [
        tuple(
            size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim
        )
        for value in graph.input
        if value.name not in stored
    ]
    return shapes, [value.name for value in graph.output]
