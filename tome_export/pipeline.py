"""The steps of an export, in order: a model becomes a bundle, which is proved before it gets its name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tome_core.schedule import Schedule, make_schedule, model_macs, tap_names
from tome_core.zoo.config import ViTConfig
from tome_export import manifest as m
from tome_export import staging
from tome_export.bundle import Bundle, BundleWriter
from tome_export.errors import ConversionError, ParityError
from tome_export.fetch import fetch
from tome_export.onnx import convert_to_onnx
from tome_export.parity.samples import sample_names
from tome_export.precision.gate import Judged, judge_precisions
from tome_export.precision.keep import check_keep
from tome_export.precision.makers import MAKERS, engines
from tome_export.preprocess import preset
from tome_export.request import ExportRequest
from tome_export.steps import Steps, release_memory

if TYPE_CHECKING:
    from paddle import nn

    from tome_export.parity.verify import Pair
    from tome_export.source import Source


_SAMPLES = 6  # one of each kind, and a second photograph


def export(
    model: str | nn.Layer, out: str | Path, *, force: bool = False, steps: Steps | None = None, **options
) -> Bundle:
    """Export a named model, or a model object, to the folder `out`.

    model: a name, see `tome-export models`; or a Paddle Vision Transformer, patched or not. An object is left
    as it was; one that is patched keeps its `r` and options.
    force: replace a bundle that is there already, once the new one is complete.
    options: the other fields of `ExportRequest`, such as r, weights, formats, outputs.

    Raises RequestError and its kin for what cannot be done, ConversionError, ParityError; then nothing
    appears at `out`.
    """
    return run(ExportRequest(model, **options), out, force=force, steps=steps)


def run(
    request: ExportRequest, out: str | Path, *, force: bool = False, steps: Steps | None = None
) -> Bundle:
    """As `export`, for a request that has been checked."""
    steps = steps or Steps()
    for precision in request.reduced:
        MAKERS[precision].check()
    with BundleWriter(out, force=force) as writer:
        weights = request.weights and fetch(request.weights, request.weights_sha256, steps)
        with steps("model"):
            from tome_export.source import open_source

            staging.renew_handlers()
            source = open_source(request, weights)
        with source:
            draft = draft_manifest(request, source)
            check_keep(request.kept_blocks, draft.model.depth)
            judged = [
                Judged(precision, runtime)
                for precision in request.by_engines
                for runtime in engines(precision, draft, request.formats)
            ]
            by_engines = [(each.runtime, each.precision) for each in judged]
            with steps("trace"):
                from tome_export.trace import save_inference_model

                weights_folder = writer.folder / "weights" if "onnx" in request.formats else None
                size = source.config.image_size
                save_inference_model(source.model, request.outputs, size, writer.folder, weights_folder)
            release_memory()
            files = {"inference.json": "", "inference.pdiparams": ""}
            artifacts = [m.Artifact("paddle", "fp32", files, debug={"inference.debug.json": ""})]
            if weights_folder is not None:
                with steps("onnx"):
                    opset, names = convert_to_onnx(
                        writer.folder,
                        weights_folder,
                        request.outputs,
                        tap_names(draft.tome.r),
                        request.opset,
                    )
                shutil.rmtree(weights_folder)
                artifacts.append(m.Artifact("onnx", "fp32", dict.fromkeys(names, ""), opset))
            calibration, pictures = request.pictures()
            for precision in request.reduced:
                maker, kept = MAKERS[precision], request.kept_blocks
                with steps(precision):
                    made = maker.make(writer.folder, kept, draft.preprocess, calibration)
                artifacts.append(m.Artifact("onnx", precision, dict.fromkeys(made.files, ""), made.opset))
                judged.append(Judged(precision, "onnx", made))
            draft = replace(draft, artifacts=tuple(artifacts), parity_samples=sample_names(_SAMPLES))
            if request.targets:
                with steps("lint"):
                    draft = replace(draft, linted=_lint(Bundle(writer.folder, draft), request.targets))
            if judged:
                results = judge_precisions(
                    Bundle(writer.folder, draft),
                    judged,
                    pictures,
                    request.kept_blocks,
                    request.min_agreement,
                    steps,
                )
                draft = replace(draft, precisions=results)
            with steps("parity"):
                parity = _prove(Bundle(writer.folder, draft), source, request.is_named, by_engines)
        with steps("write"):
            return writer.commit(replace(draft, parity=parity, created=m.utc_now()))


def _prove(
    bundle: Bundle, source: Source, ours: bool, by_engines: Sequence[Pair]
) -> tuple[m.ParityResult, ...]:
    """Hold every artifact to the Python model, and what engines make of them. Raises ParityError.

    ours: nobody else has the model, so it may leave memory while a runtime is there.
    """
    from tome_export.parity.dygraph import DygraphFollower
    from tome_export.parity.verify import judge_all, pairs_of

    spool = bundle.path / "resting" if ours else None
    reference = DygraphFollower(source.model, spool)
    pairs = (*pairs_of(bundle), *by_engines)
    found = judge_all(bundle, bundle.manifest.parity_samples, reference, pairs=pairs)
    if ours:
        shutil.rmtree(spool)
    try:
        found.require()
    except ParityError as error:
        calibrated = {each.precision for each in bundle.manifest.precisions if each.calibrated}
        if any(result.precision in calibrated for result in found.results if not result.passed):
            raise ParityError(f"{error}; calibrate on more pictures, or leave out the calibration") from None
        raise
    return found.results


def _lint(bundle: Bundle, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets, all of which the bundle will run on. Raises ConversionError otherwise."""
    from tome_export.lint import lint_bundle
    from tome_export.lint.report import summary

    report = lint_bundle(bundle, targets)
    if len(report.clean) < len(report.verdicts):
        raise ConversionError(f"the model will not run as asked: {summary(report)}")
    return report.clean


def draft_manifest(request: ExportRequest, source: Source) -> m.Manifest:
    """The manifest as far as it is known before anything is written."""
    config, state = source.config, source.model.tome
    recipe = request.preprocess or source.preprocess
    shapes = {"logits": ("float32", config.num_classes), "sources": ("int32", state.tokens)}
    return m.Manifest(
        model=m.ModelInfo(**{name: getattr(config, name) for name in m.ModelInfo.__annotations__}),
        weights=source.weights,
        tome=m.TomeInfo(
            state.schedule.r, state.prop_attn, state.schedule.tokens, macs(config, state.schedule)
        ),
        inputs=(m.TensorInfo("image", "float32", (-1, 3, config.image_size, config.image_size)),),
        outputs=tuple(m.TensorInfo(name, shapes[name][0], (-1, shapes[name][1])) for name in request.outputs),
        preprocess=preset(recipe, config.image_size),
        preset=recipe,
        artifacts=(),
        versions=m.Versions.installed(),
        created=m.utc_now(),
        labels=tuple(request.labels) if request.labels is not None else None,
    )


def macs(config: ViTConfig, schedule: Schedule) -> m.Macs:
    """Multiply-adds per image without merging and under `schedule`."""
    heads = 2 if config.distilled else 1
    unmerged = make_schedule(0, config.depth, schedule.tokens[0], schedule.protected)
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
