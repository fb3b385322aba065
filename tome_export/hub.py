"""Weights from the Hugging Face Hub, through huggingface_hub and its cache, login and offline mode."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tome_core.checkpoints.limits import shown
from tome_export.errors import MissingExtraError, RequestError

_ADDRESS = re.compile(
    r"hf:(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w-][\w./-]*))?(:(?P<file>[^:\\]+))?", re.ASCII
)
_SUFFIXES = (".safetensors", ".npz", ".pdparams", ".pd", ".pth", ".pt", ".bin")
_SHOWN = 6
_TIMEOUT = 15.0  # seconds
_NOWHERE = "the Hub cannot be reached, or HF_HUB_OFFLINE is set, and it is not in the Hub's cache"


@dataclass(frozen=True)
class HubFile:
    """A model repository on the Hub; revision None is its main branch; file None leaves the choice to us."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}{f':{self.file}' if self.file else ''}"


def parse(address: str) -> HubFile:
    """`hf:owner/name[@revision][:file]` in parts. Raises RequestError."""
    match = _ADDRESS.fullmatch(address)
    if match is None or ".." in address:
        raise RequestError(f"{address[:200]!r} is not of the form hf:owner/name[@revision][:file]")
    return HubFile(**match.groupdict())


def download(wanted: HubFile) -> tuple[Path, str]:
    """(path of the file in the Hub's cache, `hf:owner/name@commit:file`).

    Without connection, or with HF_HUB_OFFLINE=1, the cache answers. Raises RequestError, MissingExtraError.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise MissingExtraError(
            'the huggingface_hub package is not installed: pip install "tome-export[hf]"'
        ) from None
    try:
        # One question without retries: a download alone would try for half a minute, cached or not.
        files = _listed(huggingface_hub, wanted)
        file = wanted.file or pick(_cached(wanted) if files is None else files, str(wanted))
        if file.endswith(".index.json"):
            raise _sharded(wanted, file)
        path = Path(
            huggingface_hub.hf_hub_download(
                wanted.repo, file, revision=wanted.revision, local_files_only=files is None
            )
        )
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # of its HTTP library too, which is not the same in every version
        raise RequestError(f"{wanted}: {_reason(error, errors)}") from None
    # .../snapshots/COMMIT/FILE, and FILE may lie in folders
    commit = path.parents[len(PurePosixPath(file).parts) - 1].name
    return path, str(HubFile(wanted.repo, commit, file))


def pick(files: Sequence[str], repo: object) -> str:
    """The one weights file among a repository's: `model.safetensors`, the only .safetensors,
    `pytorch_model.bin`, or the only other weights file. Folders are left aside. Raises RequestError."""
    weights = sorted(name for name in files if name.lower().endswith(_SUFFIXES))
    top = [name for name in weights if "/" not in name]
    whole = [name for name in top if not re.search(r"-\d+-of-\d+\.", name)]
    tensors = [name for name in whole if name.endswith(".safetensors")]
    for choice in (["model.safetensors"], tensors, ["pytorch_model.bin"], whole):
        found = [name for name in choice if name in whole]
        if len(found) == 1:
            return found[0]
        if found:
            break
    if top and not whole:
        raise _sharded(repo, next((name for name in files if name.endswith(".index.json")), top[0]))
    shown = ", ".join(weights[:_SHOWN]) + (
        f" and {len(weights) - _SHOWN} more" if len(weights) > _SHOWN else ""
    )
    if not weights:
        raise RequestError(f"{repo}: has no weights file ({', '.join(_SUFFIXES)})")
    raise RequestError(f"{repo}: which of {shown}? Add :FILE to the address")


def _sharded(repo: object, name: str) -> RequestError:
    return RequestError(
        f"{repo}: its weights are split over several files ({name}); only whole ones are read"
    )


def _listed(huggingface_hub, wanted: HubFile) -> list[str] | None:
    """The repository's files; None if the Hub does not answer or may not be asked."""
    from huggingface_hub import errors

    try:
        found = huggingface_hub.HfApi().model_info(wanted.repo, revision=wanted.revision, timeout=_TIMEOUT)
    except errors.HFValidationError:
        raise
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            return None
        raise
    except Exception:  # of the connection, or HF_HUB_OFFLINE
        return None
    return [file.rfilename for file in found.siblings or ()]


def _cached(wanted: HubFile) -> list[str]:
    """The repository's files that are in the Hub's cache. Raises RequestError if none is."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{wanted.repo.replace('/', '--')}"
    reference = folder / "refs" / (wanted.revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else wanted.revision
    snapshot = folder / "snapshots" / (commit or "main")
    found = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    if not found:
        raise RequestError(f"{wanted}: {_NOWHERE}")
    return found


def _reason(error: Exception, errors) -> str:
    # Ordered from the particular to the general: some of these inherit from one another.
    known = (
        ("GatedRepoError", "its owner must let you in: ask on its page, then log in with `hf auth login`"),
        (
            "RepositoryNotFoundError",
            "no such model on the Hub, or a private one: then log in with `hf auth login`",
        ),
        ("RevisionNotFoundError", "the repository has no such revision"),
        ("LocalEntryNotFoundError", _NOWHERE),
        ("EntryNotFoundError", "the repository has no such file"),
    )
    for name, reason in known:
        if isinstance(error, getattr(errors, name)):
            return reason
    return f"cannot be downloaded ({type(error).__name__}: {shown(error, 160)})"
