"""Is the pre-processing in the manifest the published recipe that it says it is?"""

from __future__ import annotations

from tome_export.manifest import Manifest
from tome_export.parity.result import Finding
from tome_export.preprocess import preset


def check_recipe(manifest: Manifest) -> tuple[Finding, ...]:
    """Nothing, or what differs. A mean or deviation of another family costs accuracy without an error."""
    if manifest.preset is None:  # a bundle from before recipes were named
        return ()
    wanted, found = preset(manifest.preset, manifest.model.image_size), manifest.preprocess
    wrong = [
        f"{name} is {value} instead of {getattr(wanted, name)}"
        for name, value in vars(found).items()
        if value != getattr(wanted, name)
    ]
    if not wrong:
        return ()
    return (
        Finding("preprocess", None, None, f"{', '.join(wrong)}, as the recipe {manifest.preset!r} has it"),
    )
