"""Build the Python model of a bundle again, as the reference for what was made of it."""

from __future__ import annotations

from tome_export.errors import RequestError
from tome_export.manifest import Manifest
from tome_export.parity.dygraph import DygraphFollower
from tome_export.request import ExportRequest
from tome_export.source import open_source


def rebuild(manifest: Manifest, weights: str | None) -> DygraphFollower:
    """weights: the file that the bundle was made of, or its address; without, the manifest's seed or address.

    Raises RequestError where the model cannot be had again or the file is another one.
    """
    return DygraphFollower(open_source(request_of(manifest, weights, "use --against onnx or paddle")).model)


def request_of(manifest: Manifest, weights: str | None, otherwise: str) -> ExportRequest:
    """What was asked for when the bundle was made. weights: as for `rebuild`. otherwise: an error's advice.

    Raises RequestError.
    """
    origin, model = manifest.weights, manifest.model
    if origin.seed is None and origin.sha256 is None:
        raise RequestError(
            f"this bundle was made of a {origin.source}, which cannot be built again; {otherwise}"
        )
    if origin.seed is not None and weights is not None:
        raise RequestError("this bundle has random weights, built from their seed; leave out --weights")
    if origin.seed is None and weights is None:
        if not origin.source.startswith(("hf:", "https:")):
            raise RequestError(
                f"building the model again needs the file it was made of ({origin.source}): "
                f"add --weights FILE, or {otherwise}"
            )
        weights = origin.source
    named = (
        {} if origin.seed is not None else {"weights_sha256": origin.sha256, "weights_layout": origin.layout}
    )
    return ExportRequest(
        model.name,
        r=list(manifest.tome.r),
        weights=weights,
        image_size=model.image_size,
        num_classes=model.num_classes,
        reset_head=origin.reset_head,
        prop_attn=manifest.tome.prop_attn,
        outputs=[output.name for output in manifest.outputs],
        seed=origin.seed or 0,
        **named,
    )
