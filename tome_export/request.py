"""What an export is asked to do, checked as far as that is possible without building a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tome_core.schedule import RSpec, Schedule, make_schedule
from tome_core.zoo.config import ViTConfig, get_config
from tome_export.errors import RequestError
from tome_export.fetch import check_address
from tome_export.lint.table import choose, load
from tome_export.onnx import DEFAULT_OPSET, check_opset
from tome_export.precision.keep import check_keep, parse_keep
from tome_export.precision.makers import BY_ENGINES, MAKERS, PRECISIONS
from tome_export.precision.pictures import Pictures
from tome_export.precision.pictures import choose as choose_pictures
from tome_export.preprocess import PRESETS

FORMATS = ("paddle", "onnx")
OUTPUTS = ("logits", "sources")
_OF_NAMED_MODELS = ("weights", "weights_sha256", "weights_layout", "image_size", "num_classes")


@dataclass(frozen=True)
class ExportRequest:
    """What to export and how.

    model: a name from the zoo, or a model object, patched or not.
    r: see `tome_core.schedule.parse_r`; None keeps a patched object's own, else 16.
    weights: a file, `https://...` or `hf:owner/name[@revision][:file]`, see `tome_export.fetch`; None draws
    random parameters from `seed`, which serves speed tests only.
    weights_sha256: of that file, checked before it is read; required for pickles from a URL.
    weights_layout: where the file comes from, if it is not to be recognised; see docs/checkpoints.md.
    image_size, num_classes: None follows the file, else the name.
    reset_head: put a new random head in place of the file's. allow_nonfinite: accept NaN and inf weights.
    prop_attn: proportional attention; None keeps a patched object's own, else the family's default: off for
    MAE, which was not trained with merging, on for the others.
    preprocess: a preset's name; None follows the weights' origin.
    targets: where it must run, see `tome_export.lint`; a finding that forbids it fails the export.
    precisions: "int8" and "fp16" add an ONNX model to the float32 ones, which are always there; "bf16" adds
    none, but has what the runtimes here make of them judged; see docs/precision.md.
    calibration: folder of pictures to fix the ranges of int8 activations on; None finds them in every run.
    images: folder of pictures that they are judged on; None takes those of `calibration`, else synthetic.
    min_agreement: share of them on which they must predict what float32 does; None is 0.99, and no floor for
    random weights. keep_float: blocks that stay in float in int8 and fp16, by number.
    outputs: "logits", and "sources" for the map from input tokens to final groups, int32 [batch, tokens].

    Raises ModelError, ScheduleError, RequestError.
    """

    model: Any
    r: RSpec | None = None
    weights: str | Path | None = None
    weights_sha256: str | None = None
    weights_layout: str | None = None
    image_size: int | None = None
    num_classes: int | None = None
    reset_head: bool = False
    allow_nonfinite: bool = False
    prop_attn: bool | None = None
    preprocess: str | None = None
    formats: Sequence[str] = FORMATS
    outputs: Sequence[str] = ("logits",)
    opset: int = DEFAULT_OPSET
    targets: Sequence[str] = ()
    precisions: Sequence[str] = ("fp32",)
    calibration: str | Path | None = None
    images: str | Path | None = None
    min_agreement: float | None = None
    keep_float: Sequence[str | int] = ()
    seed: int = 0
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.is_named:
            self.schedule()
            if self.labels is not None and self.num_classes is None and self.weights is None:
                self._check_labels(self.config.num_classes)
        else:
            given = [name for name in _OF_NAMED_MODELS if getattr(self, name) is not None]
            if given:
                raise RequestError(f"{', '.join(given)} goes with a model's name, not with a model object")
        if self.weights is not None:
            check_address(self.weights, self.weights_sha256)
        elif self.weights_sha256 is not None:
            raise RequestError("a sha256 was given for weights, but no weights; name them too")
        check_opset(self.opset)
        _check_choice("format", self.formats, FORMATS)
        _check_choice("output", self.outputs, OUTPUTS)
        if "paddle" not in self.formats:
            raise RequestError("ONNX is made from the Paddle model; ask for paddle,onnx or paddle")
        if "logits" not in self.outputs:
            raise RequestError("the outputs must include logits")
        self._check_targets()
        self._check_precisions()
        if self.preprocess is not None:
            _check_choice("pre-processing preset", [self.preprocess], PRESETS)
        if self.seed < 0:
            raise RequestError(f"the seed must not be negative, got {self.seed}")
        if self.num_classes is not None and self.labels is not None:
            self._check_labels(self.num_classes)

    @property
    def is_named(self) -> bool:
        return isinstance(self.model, str)

    @property
    def config(self) -> ViTConfig:
        """The named model's configuration, before a weights file has its say."""
        changes = {"image_size": self.image_size, "num_classes": self.num_classes}
        return get_config(self.model, **{key: value for key, value in changes.items() if value is not None})

    def schedule(self) -> Schedule:
        """The named model's schedule."""
        config = self.config
        r = 16 if self.r is None else self.r
        return make_schedule(r, config.depth, config.tokens, config.protected)

    def _check_targets(self) -> None:
        for name in choose(self.targets) if self.targets else ():
            if (reads := load(name).graph) not in self.formats:
                raise RequestError(f"the target {name} reads {reads}; add it to the formats")

    @property
    def kept_blocks(self) -> tuple[int, ...]:
        """The blocks of `keep_float`, in order."""
        return parse_keep(self.keep_float)

    def pictures(self) -> tuple[Pictures | None, Pictures]:
        """What to calibrate on, if on anything, and what to judge on. Raises RequestError."""
        return choose_pictures(*(each and Path(each) for each in (self.calibration, self.images)))

    @property
    def reduced(self) -> tuple[str, ...]:
        """The precisions below float32 that get an artifact of their own."""
        return tuple(each for each in self.precisions if each in MAKERS)

    @property
    def by_engines(self) -> tuple[str, ...]:
        """The precisions that engines make of the float32 artifacts."""
        return tuple(each for each in self.precisions if each in BY_ENGINES)

    def _check_precisions(self) -> None:
        _check_choice("precision", self.precisions, PRECISIONS)
        asked = {
            "calibration": (self.calibration is not None, ("int8",)),
            "images": (self.images is not None, (*MAKERS, *BY_ENGINES)),
            "min_agreement": (self.min_agreement is not None, (*MAKERS, *BY_ENGINES)),
            "keep_float": (bool(self.keep_float), tuple(MAKERS)),
        }
        for name, (is_given, goes_with) in asked.items():
            if is_given and not {*goes_with} & {*self.precisions}:
                raise RequestError(f"{name} goes with the precision {' or '.join(goes_with)}; ask for it too")
        if self.reduced and "onnx" not in self.formats:
            raise RequestError(f"{self.reduced[0]} is a precision of the ONNX model; add onnx to the formats")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise RequestError(f"the agreement is a share from 0 to 1, not {self.min_agreement}")
        kept = self.kept_blocks
        if self.is_named:
            check_keep(kept, self.config.depth)
        if self.reduced or self.by_engines:
            self.pictures()

    def _check_labels(self, classes: int) -> None:
        if len(self.labels) != classes:
            raise RequestError(f"{len(self.labels)} labels for {classes} classes")


def _check_choice(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    for name in asked:
        if name not in known:
            raise RequestError(f"no {what} {name!r}; choose from {', '.join(known)}")
    if not asked or len(set(asked)) != len(asked):
        raise RequestError(f"name each {what} once, at least one of {', '.join(known)}")
