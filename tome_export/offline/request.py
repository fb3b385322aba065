"""What is asked of a run, as far as it decides the answers: a later run may only go on with the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tome_export.bundle import Bundle, sha256_of
from tome_export.errors import RequestError
from tome_export.manifest import MANIFEST_NAME
from tome_export.runtimes import artifact_of, check_made
from tome_export.runtimes.base import parse_device


@dataclass(frozen=True)
class Request:
    """bundle: sha256 of its manifest, which has those of its files. source: the folder, links followed. top:
    classes of each image."""

    bundle: str
    source: str
    runtime: str
    precision: str
    device: str
    top: int

    def differences(self, other: Request) -> str:
        """In words, what `other` asks differently: "precision int8, now fp32"; "" if nothing."""
        found = []
        for field in fields(self):
            before, now = getattr(self, field.name), getattr(other, field.name)
            if before != now:
                shown = field.name == "bundle"
                found.append("another bundle" if shown else f"{field.name} {before}, now {now}")
        return "; ".join(found)


@dataclass(frozen=True)
class Description:
    """What the folder of parts says of itself. images, ignored: of the listing. shard: images in a part."""

    request: Request
    images: int
    ignored: int
    shard: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Description:
        """Raises ValueError, TypeError or KeyError for anything else."""
        data = json.loads(text)
        found = cls(**(data | {"request": Request(**data["request"])}))
        if not all(isinstance(each, int) and each > 0 for each in (found.images, found.shard)):
            raise ValueError("counts")
        return found


def make_request(
    bundle: Bundle, source: str | Path, runtime: str, precision: str, device: str, top: int
) -> Request:
    """Check what is asked before anything is started. runtime: "" takes the bundle's first format.

    Raises RequestError, BundleError, MissingExtraError.
    """
    source = Path(source)
    if not source.is_dir():
        raise RequestError(f"{source}: is not a folder" if source.exists() else f"{source}: no such folder")
    if top < 1:
        raise RequestError(f"--top should be at least 1, not {top}")
    if parse_device(device)[1]:
        raise RequestError("Ray gives each actor a GPU of its own; use --device cuda")
    name = runtime or bundle.first_format(precision)
    artifact_of(name, bundle, precision)
    check_made(name, precision, bundle.manifest)
    bundle.verify_hashes()
    top = min(top, bundle.manifest.model.num_classes)
    digest = sha256_of(bundle.path / MANIFEST_NAME)
    return Request(digest, str(source.resolve()), name, precision, device.partition(":")[0], top)
