"""What is recorded of an artifact in reduced precision, as the manifest stores it."""

from __future__ import annotations

from dataclasses import dataclass

from tome_export.parity.result import Figures


@dataclass(frozen=True)
class PrecisionResult:
    """How a reduced artifact was made, and how well it predicts what `against`, the full one, predicts.

    method: "dynamic", which scales activations as they come, or "static", by what was seen on `calibrated`
    pictures. layers: matrix products in reduced precision. kept: blocks in float by request. inputs, source:
    how many pictures it was judged on, and "pictures" or "samples", synthetic ones. figures: of the logits.
    min_agreement: the floor that top-1 agreement was held to; None: it was not, as the weights are random.
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

    @property
    def passed(self) -> bool:
        return self.min_agreement is None or self.figures.top1_agreement >= self.min_agreement
