"""The models of a server, as the protocol describes them: pure data made of a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tome_export.manifest import Manifest, TensorInfo
from tome_export.serving.refusal import Refusal
from tome_export.serving.tensors import BYTES, DATATYPES, TensorSpec

JPEG, LABELS, PROBABILITIES, CLASSES = "jpeg", "labels", "probabilities", "classes"
VERSION = "1"


@dataclass(frozen=True)
class Model:
    """One model of the protocol. Each has one input."""

    name: str
    platform: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]

    def metadata(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": self.platform,
            "inputs": [self.input.metadata()],
            "outputs": [output.metadata() for output in self.outputs],
        }


@dataclass(frozen=True)
class Asked:
    """A checked request: the input as an array, and the names of the outputs wanted, in order."""

    model: Model
    id: str
    input: Any
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def models_of(manifest: Manifest, name: str, runtime: str, top: int) -> dict[str, Model]:
    """The tensor model, and NAME_jpeg, by name."""
    shown = (manifest.model.num_classes, top)
    answer = min(shown)
    tensor = Model(name, f"tome_{runtime}", _spec(manifest.inputs[0]), tuple(map(_spec, manifest.outputs)))
    jpeg = Model(
        f"{name}_jpeg",
        "tome_jpeg",
        TensorSpec(JPEG, BYTES, (-1, 1)),
        (
            TensorSpec(LABELS, BYTES, (-1, answer)),
            TensorSpec(PROBABILITIES, "FP32", (-1, answer)),
            TensorSpec(CLASSES, "INT32", (-1, answer)),
        ),
    )
    return {model.name: model for model in (tensor, jpeg)}


def find(models: Mapping[str, Model], name: str, version: str) -> Model:
    """Raises Refusal: 404 for no such model or version. version: "" is any."""
    if name not in models:
        raise Refusal(404, f"no model {name[:100]!r}; there is {', '.join(models)}")
    if version not in ("", VERSION):
        raise Refusal(404, f"model {name!r} has no version {version[:100]!r}; there is {VERSION}")
    return models[name]


def _spec(tensor: TensorInfo) -> TensorSpec:
    return TensorSpec(tensor.name, DATATYPES[tensor.dtype], tensor.shape)
