"""The same weights with another schedule, exported again and kept: what a bundle's speed is compared with.

Twins lie in the cache folder under a name made of everything that shapes them: weights, options, schedule,
versions, and the code that exports.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from tome_core.schedule import RSpec
from tome_export.bundle import Bundle
from tome_export.caches import cache_folder
from tome_export.errors import BundleError
from tome_export.manifest import Versions
from tome_export.parity.rebuild import request_of
from tome_export.request import ExportRequest
from tome_export.steps import Steps

_ROOT = Path(__file__).resolve().parents[2]
_ADVICE = "compare with another bundle: --against DIR"


def twin(bundle: Bundle, r: RSpec, weights: str | None = None, steps: Steps | None = None) -> Bundle:
    """This bundle's model exported with schedule `r`, from the cache or now, proved like any export.

    weights: the file that the bundle was made of, where it has no seed and no address.
    Raises RequestError where the model cannot be had again, and what an export raises.
    """
    manifest = bundle.manifest
    request = replace(
        request_of(manifest, weights, _ADVICE),
        r=r,
        formats=tuple(artifact.format for artifact in manifest.artifacts if artifact.precision == "fp32"),
        opset=next((each.opset for each in manifest.artifacts if each.opset), 17),
        preprocess=manifest.preset,
    )
    folder = cache_folder() / "twins" / _key(bundle, request)
    try:
        found = Bundle.open(folder)
        found.verify_hashes()
        return found
    except BundleError:
        pass
    from tome_export.pipeline import run

    folder.parent.mkdir(parents=True, exist_ok=True)
    return run(request, folder, force=folder.exists(), steps=steps)


def _key(bundle: Bundle, request: ExportRequest) -> str:
    """Model and schedule to be read by people, and a hash of everything."""
    schedule = request.schedule().r
    everything = {
        "model": asdict(bundle.manifest.model),
        "weights": asdict(bundle.manifest.weights),
        "prop_attn": request.prop_attn,
        "preprocess": asdict(bundle.manifest.preprocess),
        "outputs": list(request.outputs),
        "formats": list(request.formats),
        "opset": request.opset,
        "r": schedule,
        "versions": asdict(Versions.installed()),
        "code": _code(),
    }
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]
    return f"{bundle.manifest.model.name}-merges-{sum(schedule)}-{digest}"


def _code() -> str:
    """Of the sources that an exported graph follows from."""
    digest = hashlib.sha256()
    for path in sorted((_ROOT / "tome_core").rglob("*.py")):
        digest.update(path.read_bytes())
    for path in sorted((_ROOT / "tome_export").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
