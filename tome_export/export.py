"""The whole pipeline: a model becomes a bundle, and the bundle is proved before it gets its name."""

from __future__ import annotations

import ctypes
import gc
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tome_core.errors import ModelError
from tome_core.schedule import RSpec, Schedule, make_schedule, model_macs
from tome_core.zoo.config import ViTConfig, get_config
from tome_export import manifest as m
from tome_export.bundle import Bundle, BundleWriter
from tome_export.errors import RequestError
from tome_export.onnx import DEFAULT_OPSET, check_opset, convert_to_onnx
from tome_export.preprocess import preset
from tome_export.steps import Steps

FORMATS = ("paddle", "onnx")
OUTPUTS = ("logits", "sources")


@dataclass(frozen=True)
class ExportRequest:
    """What to export and how. Building one checks everything that can be checked without loading a model.

    weights: a weights file; None draws random parameters from `seed`, which serves speed tests only.
    prop_attn: proportional attention; None is the family's default (off for MAE, which was not trained with
    merging, on for the others).
    outputs: "logits", and "sources" for the map from input tokens to final groups, int32 [batch, tokens].
    Raises ModelError, ScheduleError, RequestError.
    """

    model: str
    r: RSpec = 16
    weights: Path | None = None
    image_size: int | None = None
    num_classes: int | None = None
    prop_attn: bool | None = None
    formats: Sequence[str] = FORMATS
    outputs: Sequence[str] = ("logits",)
    opset: int = DEFAULT_OPSET
    seed: int = 0
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self.schedule()
        check_opset(self.opset)
        _check_choice("format", self.formats, FORMATS)
        _check_choice("output", self.outputs, OUTPUTS)
        if "paddle" not in self.formats:
            raise RequestError("ONNX is made from the Paddle model; ask for paddle,onnx or paddle")
        if "logits" not in self.outputs:
            raise RequestError("the outputs must include logits")
        if self.seed < 0:
            raise RequestError(f"the seed must not be negative, got {self.seed}")
        if self.labels is not None and len(self.labels) != self.config.num_classes:
            raise RequestError(f"{len(self.labels)} labels for {self.config.num_classes} classes")

    @property
    def config(self) -> ViTConfig:
        changes = {"image_size": self.image_size, "num_classes": self.num_classes}
        return get_config(self.model, **{key: value for key, value in changes.items() if value is not None})

    @property
    def uses_prop_attn(self) -> bool:
        return self.config.family != "mae" if self.prop_attn is None else self.prop_attn

    def schedule(self) -> Schedule:
        config = self.config
        return make_schedule(self.r, config.depth, config.tokens, config.protected)


def export(
    request: ExportRequest, out: str | Path, *, force: bool = False, steps: Steps | None = None
) -> Bundle:
    """Export to the folder `out`, which appears only when every artifact agrees with the model.

    force: replace a bundle that is there already, once the new one is complete.
    Raises RequestError and its kin for what cannot be done, ConversionError, ParityError.
    """
    steps = steps or Steps()
    with BundleWriter(out, force=force) as writer:
        with steps("model"):
            model, weights = _build(request)
        draft = _manifest(request, weights)
        with steps("reference"):
            from tome_export.reference import answer

            reference = answer(model, request.outputs, draft.preprocess)
        with steps("trace"):
            from tome_export.trace import save_inference_model

            weights_folder = writer.folder / "weights" if "onnx" in request.formats else None
            image_size = request.config.image_size
            save_inference_model(model, request.outputs, image_size, writer.folder, weights_folder)
        del model
        _release_memory()
        artifacts = [m.Artifact("paddle", "fp32", {"inference.json": "", "inference.pdiparams": ""})]
        if weights_folder is not None:
            with steps("onnx"):
                opset, files = convert_to_onnx(writer.folder, weights_folder, request.outputs, request.opset)
            shutil.rmtree(weights_folder)
            artifacts.append(m.Artifact("onnx", "fp32", dict.fromkeys(files, ""), opset))
        draft = replace(draft, artifacts=tuple(artifacts), parity_samples=reference.samples)
        with steps("parity"):
            from tome_export.parity import check_runtime, require

            results = []
            for artifact in artifacts:
                bundle = Bundle(writer.folder, draft)
                results += check_runtime(
                    artifact.format, bundle, reference.samples, reference.outputs, against="dygraph"
                )
                _release_memory()
            require(results)
        with steps("write"):
            return writer.commit(replace(draft, parity=tuple(results), created=m.utc_now()))


def _release_memory() -> None:
    """Give freed weights back to the system: the model and its runtimes are never resident at once."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _build(request: ExportRequest):
    """The patched model in eval mode, and where its weights came from."""
    from tome_core.patch import apply_patch
    from tome_core.zoo.random_init import randomise
    from tome_core.zoo.vit import VisionTransformer

    if request.weights is None:
        model = VisionTransformer(request.config)
        randomise(model, request.seed)
        weights = m.WeightsInfo("random", seed=request.seed)
    else:
        model, weights = _load(request)
    model.eval()
    apply_patch(model, prop_attn=request.uses_prop_attn, trace_source="sources" in request.outputs)
    model.r = request.r
    return model, weights


def _load(request: ExportRequest):
    from tome_core.checkpoints import read_checkpoint
    from tome_core.checkpoints.loading import load_weights
    from tome_core.zoo.vit import VisionTransformer

    checkpoint = read_checkpoint(request.weights)
    head0 = checkpoint.tensors.get("head0.weight")
    width = head0.shape[-1] if head0 is not None else None
    model = VisionTransformer(replace(request.config, representation_size=width))
    load_weights(model, checkpoint.tensors)
    return model, m.WeightsInfo(Path(request.weights).name, sha256=checkpoint.sha256)


def _manifest(request: ExportRequest, weights: m.WeightsInfo) -> m.Manifest:
    """The manifest as far as it is known before anything is written."""
    config, schedule = request.config, request.schedule()
    shapes = {"logits": ("float32", config.num_classes), "sources": ("int32", config.tokens)}
    recipe = "vit_384" if (config.family, config.image_size) == ("vit", 384) else config.family
    return m.Manifest(
        model=m.ModelInfo(**{name: getattr(config, name) for name in m.ModelInfo.__annotations__}),
        weights=weights,
        tome=m.TomeInfo(schedule.r, request.uses_prop_attn, schedule.tokens, macs(config, schedule)),
        inputs=(m.TensorInfo("image", "float32", (-1, 3, config.image_size, config.image_size)),),
        outputs=tuple(m.TensorInfo(name, shapes[name][0], (-1, shapes[name][1])) for name in request.outputs),
        preprocess=preset(recipe, config.image_size),
        artifacts=(),
        versions=m.Versions.installed(),
        created=m.utc_now(),
        labels=tuple(request.labels) if request.labels is not None else None,
    )


def macs(config: ViTConfig, schedule: Schedule) -> m.Macs:
    """Multiply-adds per image without merging and under `schedule`."""
    heads = 2 if config.distilled else 1
    unmerged = make_schedule(0, config.depth, config.tokens, config.protected)
    base, merged = (
        model_macs(
            each,
            config.embed_dim,
            config.hidden_dim,
            config.patch_size,
            config.patches,
            heads * config.num_classes,
        )
        for each in (unmerged, schedule)
    )
    return m.Macs(base.total, merged.total, base.blocks, merged.blocks)


def _check_choice(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    for name in asked:
        if name not in known:
            raise RequestError(f"no {what} {name!r}; choose from {', '.join(known)}")
    if not asked or len(set(asked)) != len(asked):
        raise ModelError(f"name each {what} once, at least one of {', '.join(known)}")
