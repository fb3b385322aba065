"""The precisions below fp32, and who makes them: they are artifacts of the bundle, or a runtime's engine
makes them of the fp32 one. To add an artifact: a module with what `Maker` names, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from tome_export.errors import RequestError
from tome_export.manifest import Manifest
from tome_export.precision.made import Made
from tome_export.precision.pictures import Pictures
from tome_export.preprocess import Preprocess
from tome_export.runtimes import RUNTIMES, check_made, probe

if TYPE_CHECKING:
    from onnx import ModelProto

BY_ENGINES = ("bf16",)


@dataclass(frozen=True)
class Maker:
    """An ONNX artifact's.

    check: raises MissingExtraError if a package is not there. make: writes it, see `int8.make`.
    judged: of its file, the model that is judged in its place by ONNX Runtime on the CPU.
    variants: of the files of the float32 and the reduced model and the blocks kept already, a function that
    gives the reduced model with further blocks in float.
    """

    module: str

    def _module(self) -> ModuleType:
        return import_module(self.module)

    def check(self) -> None:
        self._module().check()

    def make(
        self, folder: Path, kept: Sequence[int], recipe: Preprocess, calibration: Pictures | None
    ) -> Made:
        return self._module().make(folder, kept, recipe, calibration)

    def judged(self, file: Path) -> Path | bytes:
        return self._module().judged(file)

    def variants(
        self, full: Path, reduced: Path, kept: Collection[int]
    ) -> Callable[[Collection[int]], ModelProto]:
        return self._module().variants(full, reduced, kept)


MAKERS = MappingProxyType(
    {
        "int8": Maker("tome_export.precision.int8"),
        "fp16": Maker("tome_export.precision.fp16"),
    }
)
PRECISIONS = ("fp32", *BY_ENGINES, *reversed(MAKERS))
"""What an export may be asked for."""


def engines(precision: str, manifest: Manifest, formats: Collection[str]) -> tuple[str, ...]:
    """The runtimes that make this precision of an artifact in one of these formats, and can do it here.

    Raises RequestError, with each one's reason, if there is none.
    """
    usable, reasons = [], []
    for name, engine in RUNTIMES.items():
        if precision not in engine.makes or engine.reads not in formats:
            continue
        try:
            if not (found := probe(name)).usable:
                raise RequestError(found.detail)
            check_made(name, precision, manifest)
            usable.append(name)
        except RequestError as error:
            reasons.append(f"{name}: {error}")
    if not usable:
        raise RequestError(f"no runtime makes {precision} of this model here ({'; '.join(reasons)})")
    return tuple(usable)
