"""The model to export: built by name with a file's weights or random ones, or somebody's object."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from paddle import nn

from tome_core.patch import apply_patch
from tome_core.zoo.config import ViTConfig
from tome_export.describe import describe
from tome_export.fetch import Fetched, fetch
from tome_export.manifest import WeightsInfo
from tome_export.request import ExportRequest


@dataclass
class Source:
    """A patched model in eval mode with its schedule set, and what is known about it.

    preprocess: name of the preset that fits. Leaving the `with` block puts a caller's object back as it was
    and drops the model.
    """

    model: nn.Layer
    config: ViTConfig
    weights: WeightsInfo
    preprocess: str
    _restore: dict = field(default_factory=dict)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._restore:
            state = self.model.tome
            state.prop_attn, state.trace_source = self._restore["prop_attn"], self._restore["trace_source"]
            self.model.r = self._restore["r"]
            if "forward" in self._restore:
                self.model.forward = self._restore["forward"]
            if self._restore["training"]:
                self.model.train()
        self.model = None


def open_source(request: ExportRequest, weights: Fetched | None = None) -> Source:
    """Build or adopt the model.

    weights: the request's, if they are fetched already.
    Raises ModelError, CheckpointError, PatchError, ScheduleError, and what `fetch` raises.
    """
    if not request.is_named:
        return _adopt(request)
    if request.weights is None:
        source = _random(request)
    else:
        source = _load(request, weights or fetch(request.weights, request.weights_sha256))
    prop_attn = source.config.family != "mae" if request.prop_attn is None else request.prop_attn
    apply_patch(source.model, prop_attn, trace_source="sources" in request.outputs)
    source.model.r = 16 if request.r is None else request.r
    source.model.eval()
    return source


def _random(request: ExportRequest) -> Source:
    from tome_core.zoo.random_init import randomise
    from tome_core.zoo.vit import VisionTransformer

    model = VisionTransformer(request.config)
    randomise(model, request.seed)
    return Source(model, model.config, WeightsInfo("random", seed=request.seed), _preset(model.config))


def _load(request: ExportRequest, fetched: Fetched) -> Source:
    from tome_core.checkpoints.loading import load_checkpoint

    loaded = load_checkpoint(
        request.model,
        fetched.path,
        layout=request.weights_layout,
        image_size=request.image_size,
        num_classes=request.num_classes,
        reset_head=request.reset_head,
        allow_nonfinite=request.allow_nonfinite,
    )
    weights = WeightsInfo(
        fetched.source,
        sha256=loaded.sha256,
        layout=loaded.layout,
        notes=loaded.notes,
        reset_head=request.reset_head,
    )
    return Source(loaded.model, loaded.model.config, weights, loaded.preprocess)


def _adopt(request: ExportRequest) -> Source:
    """A caller's object: a patched one is borrowed, any other copied, since patching cannot be undone."""
    model, restore = request.model, {}
    sources = "sources" in request.outputs
    if hasattr(model, "tome"):
        state = model.tome
        restore = {
            "prop_attn": state.prop_attn,
            "trace_source": state.trace_source,
            "r": model.r,
            "training": model.training,
        }
        if hasattr(vars(model).get("forward"), "rollback"):  # of to_static: what it traced, with the r it had
            restore["forward"] = vars(model).pop("forward")
        state.trace_source = sources
        if request.prop_attn is not None:
            state.prop_attn = request.prop_attn
        if request.r is not None:
            model.r = request.r
    else:
        model = copy.deepcopy(model)
        pooled = getattr(model, "fc_norm", None) is not None
        prop_attn = not pooled if request.prop_attn is None else request.prop_attn
        apply_patch(model, prop_attn, trace_source=sources)
        model.r = 16 if request.r is None else request.r
    model.eval()
    config = describe(model)
    return Source(model, config, WeightsInfo(f"{config.name} object"), _preset(config), restore)


def _preset(config: ViTConfig) -> str:
    return "vit_384" if (config.family, config.image_size) == ("vit", 384) else config.family
