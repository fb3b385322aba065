"""Weights by address: a path, `https://...` through a cache of our own, `hf:...` through the Hub's.

What a server sends is a stranger's word: a pickle needs the hash of a trusted copy, and the cache checks each
file at every use against the hash in its name.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tome_core.checkpoints.limits import Refused
from tome_core.checkpoints.zips import Zip
from tome_export import hub
from tome_export.caches import cache_folder
from tome_export.download import check_hash, check_url, download, hash_file, public
from tome_export.errors import RequestError
from tome_export.steps import Steps

TIMEOUT = 30.0
"""Seconds that a server may be silent for."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_INERT = (".safetensors", ".npz")  # formats that cannot hold code; all others are pickles, or may be


@dataclass(frozen=True)
class Fetched:
    """A weights file on this machine. source: what the manifest says of its origin, without credentials."""

    path: Path
    source: str


def check_address(weights: str | Path, sha256: str | None = None) -> None:
    """Refuse, without touching the network, what `fetch` would refuse anyway. Raises RequestError."""
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise RequestError(f"--weights-sha256 takes 64 hexadecimal digits, not {sha256[:80]!r}")
    scheme = _scheme(weights)
    if scheme == "hf":
        hub.parse(str(weights))
    elif scheme:
        check_url(str(weights))
        suffix = _name(str(weights))[1]
        if sha256 is None and suffix not in _INERT:
            raise RequestError(
                f"{public(str(weights))}: a {suffix or 'nameless'} file may be a pickle, so it needs "
                "--weights-sha256, the hash of a copy you trust; a .safetensors file needs none"
            )


def fetch(
    weights: str | Path, sha256: str | None = None, steps: Steps | None = None, timeout: float = TIMEOUT
) -> Fetched:
    """Have a weights file here, downloaded as the step "download" if need be.

    weights: a path, `https://...` (`http://` on this machine only), or `hf:owner/name[@revision][:file]`.
    sha256: of the file, 64 hexadecimal digits; required for pickles from a URL, checked wherever given.
    timeout: seconds that a URL's server may be silent for.

    URLs are kept in `cache_folder()` and not asked again. Raises RequestError, MissingExtraError.
    """
    check_address(weights, sha256)
    steps, sha256, scheme = steps or Steps(), sha256 and sha256.lower(), _scheme(weights)
    if scheme in ("http", "https"):
        return Fetched(_from_url(str(weights), sha256, steps, timeout), public(str(weights)))
    if scheme == "hf":
        with steps("download"):
            fetched = Fetched(*hub.download(hub.parse(str(weights))))
    else:
        fetched = Fetched(Path(weights), Path(weights).name)
    if sha256 is not None and fetched.path.is_file():  # a file that is not there is for the reader to refuse
        check_hash(str(weights), hash_file(fetched.path), sha256)
    return fetched


def _scheme(weights: str | Path) -> str:
    """ "hf", what stands before "://", or "" for a path."""
    text = weights if isinstance(weights, str) else ""
    if text.startswith("hf:"):
        return "hf"
    return text.partition("://")[0].lower() if "://" in text else ""


def _name(url: str) -> tuple[str, str]:
    """(file name that is safe anywhere, its suffix) of a URL."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-80:] or "weights", PurePosixPath(name).suffix.lower()


def _from_url(url: str, sha256: str | None, steps: Steps, timeout: float) -> Path:
    name, suffix = _name(url)
    folder, prefix = cache_folder(), hashlib.sha256(url.encode()).hexdigest()[:16] + "-"
    path = _cached(folder, prefix, name, sha256)
    if path is None:
        with steps("download"):
            path = download(url, folder, prefix, name, sha256, timeout)
    if sha256 is None and not _is_inert(path, suffix):
        path.unlink()
        raise RequestError(f"{public(url)}: this is no {suffix} file; if you trust it, give --weights-sha256")
    return path


def _cached(folder: Path, prefix: str, name: str, sha256: str | None) -> Path | None:
    """The last download of this URL (with this hash, if given) that is intact; what is not is removed."""
    for path in sorted(folder.glob(f"{prefix}*-{name}"), key=os.path.getmtime, reverse=True):
        digest = path.name[len(prefix) : len(prefix) + 64]
        if sha256 in (None, digest):
            if hash_file(path) == digest:
                return path
            path.unlink()
    return None


def _is_inert(path: Path, suffix: str) -> bool:
    """Whether the content is what the suffix, one of `_INERT`, says."""
    with open(path, "rb") as file:
        if suffix == ".safetensors":
            return file.read(9)[8:] == b"{"
        try:
            return all(
                name.endswith(".npy") for name in Zip(file, path.stat().st_size, compressed=True).sizes
            )
        except (Refused, zipfile.BadZipFile):
            return False
