"""What is recorded of an artifact in reduced precision, as the manifest stores it."""

from __future__ import annotations

from dataclasses import dataclass

from tome_export.parity.result import Figures


@dataclass(frozen=True)
class PrecisionResult:
    """How a model in reduced precision was made, and how well it predicts what `against`, the full one,
    predicts.

    method: of int8 "dynamic", which scales activations as they come, or "static", by what was seen on
    `calibrated` pictures; "cast" of fp16; "engine" for what the engine of `runtime` makes of the float32
    artifact, else None. layers: linear layers in reduced precision, 0 where only the engine knows. kept:
    blocks in float by request. inputs, source: how many pictures it was judged on, and "pictures" or
    "samples", synthetic ones. figures: of the logits. min_agreement: the floor that top-1 agreement was held
    to; None: it was not, as the weights are random.
    """

    format: str
    precision: str
    method: str
    calibrated: int
    layers: int
    kept: tuple[int, ...]
    against: str
    inputs: int
    source: str
    figures: Figures
    min_agreement: float | None
    runtime: str | None = None

    @property
    def name(self) -> str:
        """ "onnx int8", or "openvino bf16"."""
        return f"{self.runtime or self.format} {self.precision}"

    @property
    def passed(self) -> bool:
        return self.min_agreement is None or self.figures.top1_agreement >= self.min_agreement
