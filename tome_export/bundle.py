"""The exported folder: open and verify one, or write one so that it appears complete or not at all.

A bundle is written beside its destination under a hidden name and renamed into place when complete. A killed
export leaves only that hidden folder, which the next export to the same name clears away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tome_core.schedule import tap_names
from tome_export import staging
from tome_export.errors import BundleError
from tome_export.manifest import MANIFEST_NAME, Artifact, Manifest


@dataclass(frozen=True)
class Bundle:
    """An exported bundle on disk: its folder and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read the manifest of the bundle at `path`. Artifacts are not read. Raises BundleError."""
        path = Path(path)
        try:
            if not path.is_dir():
                what = "is a file, not a bundle folder" if path.exists() else "no such bundle folder"
                raise BundleError(f"{path}: {what}")
            text = (path / MANIFEST_NAME).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(f"{path}: not an exported bundle: it has no {MANIFEST_NAME}") from None
        except UnicodeDecodeError:
            raise BundleError(f"{path}: {MANIFEST_NAME} is damaged (not UTF-8); export it again") from None
        except (OSError, ValueError) as error:
            raise _os_error(path, "cannot be read", error) from None
        try:
            return cls(path, Manifest.from_json(text))
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None

    def artifact(self, format: str, precision: str = "fp32") -> Artifact:
        """The artifact of this format ("paddle", "onnx") and precision. Raises BundleError."""
        for artifact in self.manifest.artifacts:
            if (artifact.format, artifact.precision) == (format, precision):
                return artifact
        there = ", ".join(f"{artifact.format} {artifact.precision}" for artifact in self.manifest.artifacts)
        raise BundleError(f"{self.path}: holds no {format} model in {precision}; it holds {there or 'none'}")

    def first_format(self, precision: str = "fp32") -> str:
        """The format of the first artifact of this precision; of the first at all if there is none."""
        formats = [each.format for each in self.manifest.artifacts if each.precision == precision]
        return (formats or [self.manifest.artifacts[0].format])[0]

    def file(self, artifact: Artifact, suffix: str) -> Path:
        """Path of the artifact's one file that ends in `suffix`. Raises BundleError if it is not there."""
        path = self.path / artifact.file(suffix)
        if not path.is_file():
            raise BundleError(f"{path}: missing from the bundle; export it again")
        return path

    def debug_file(self, artifact: Artifact, suffix: str) -> Path:
        """As `file`, of the artifact's variant that shows what is inside. Raises BundleError."""
        if not artifact.debug:
            raise BundleError(
                f"{self.path}: its {artifact.format} model came without the variant that shows merge "
                "decisions; export the bundle again"
            )
        return self.file(replace(artifact, files=artifact.debug), suffix)

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the tensors that debug variants show, in order: see `tome_core.schedule.tap_names`."""
        return tap_names(self.manifest.tome.r)

    def file_sizes(self) -> dict[str, int]:
        """Bytes of every file the manifest lists, by relative path. Raises BundleError if one is missing."""
        try:
            return {name: (self.path / name).stat().st_size for name in self._hashes()}
        except OSError as error:
            raise _os_error(error.filename, "cannot be read", error) from None

    def verify_hashes(self) -> None:
        """Raise BundleError, naming them, if listed files are missing or not what was exported."""
        problems = []
        for name, expected in self._hashes().items():
            try:
                if sha256_of(self.path / name) != expected:
                    problems.append(f"{name} changed")
            except (FileNotFoundError, NotADirectoryError):
                problems.append(f"{name} missing")
            except OSError as error:
                problems.append(f"{name} unreadable ({error.strerror})")
        if problems:
            raise BundleError(f"{self.path}: not as exported: {', '.join(problems)}; export it again")

    def _hashes(self) -> dict[str, str]:
        return {
            name: digest
            for artifact in self.manifest.artifacts
            for name, digest in (artifact.files | artifact.debug).items()
        }


class BundleWriter:
    """Write a bundle to `out`, all or nothing:

        with BundleWriter("out", force=True) as writer:
            ...                       # write files under writer.folder
            writer.commit(manifest)   # hashes them, writes the manifest, moves everything into place

    The constructor refuses a destination that could not be used, before any long work: one that exists or,
    with `force`, one that is neither a bundle nor an empty folder. Leaving the block without a commit, by an
    exception, Ctrl-C or SIGTERM too, removes what was written. Raises BundleError.
    """

    def __init__(self, out: str | Path, force: bool = False):
        self.force = force
        self.out = _resolve(out)
        self._shown = str(out)
        self._check_destination()

    @property
    def folder(self) -> Path:
        """Where to write the bundle's files."""
        return self._folder

    def __enter__(self) -> BundleWriter:
        self._stack = contextlib.ExitStack()
        with self._stack:
            self._stack.enter_context(staging.terminate_as_exit())
            self._made_parents = self._make_parents()
            self._stack.callback(self._remove_empty_parents)
            staging.clear_stale(self.out)
            self._check_destination()  # a bundle set aside by a killed export may just have been put back
            self._folder = staging.sibling(self.out, staging.PARTIAL)
            self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            try:
                self._folder.mkdir()
            except OSError as error:
                raise _os_error(self._shown, f"cannot write to {self.out.parent}", error) from None
            self._stack.enter_context(staging.locked(self._folder))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def commit(self, manifest: Manifest) -> Bundle:
        """Hash the files that `manifest.artifacts` lists, write the manifest, move the folder to `out`.

        Raises BundleError if a listed file was not written, or the destination has been taken meanwhile.
        """
        try:
            artifacts = tuple(
                replace(artifact, files=self._hashes(artifact.files), debug=self._hashes(artifact.debug))
                for artifact in manifest.artifacts
            )
            manifest = replace(manifest, artifacts=artifacts)
            (self.folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
            self._check_destination()
            staging.swap_in(self.folder, self.out)
        except OSError as error:
            raise _os_error(error.filename or self._shown, "could not write the bundle", error) from None
        return Bundle(self.out, manifest)

    def _hashes(self, names: Iterable[str]) -> dict[str, str]:
        return {name: sha256_of(self.folder / name) for name in names}

    def _check_destination(self) -> None:
        out, shown = self.out, self._shown
        try:
            try:
                out.lstat()  # says so when the name is too long, which exists() takes for absent
            except (FileNotFoundError, NotADirectoryError):
                return
            if not out.is_dir():
                raise BundleError(f"{shown}: is a file; choose another folder for the bundle")
            if not self.force:
                raise BundleError(f"{shown}: already exists; add --force to replace it, or choose another")
            if any(out.iterdir()) and not _is_bundle(out):
                raise BundleError(
                    f"{shown}: is not an exported bundle, so --force does not replace it; "
                    "choose another folder, or remove this one yourself"
                )
            if os.path.ismount(out) or Path.cwd().is_relative_to(out):
                what = "a mount point" if os.path.ismount(out) else "the current folder or holds it"
                raise BundleError(f"{shown}: is {what} and cannot be replaced; name a folder inside it")
        except OSError as error:
            raise _os_error(shown, "cannot be used for the bundle", error) from None

    def _make_parents(self) -> list[Path]:
        """Create the missing parents of `out`; returns them, innermost first."""
        missing = []
        try:
            for parent in self.out.parents:
                if parent.is_dir():
                    break
                missing.append(parent)
            self.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _os_error(self._shown, f"cannot create {self.out.parent}", error) from None
        return missing

    def _remove_empty_parents(self) -> None:
        with contextlib.suppress(OSError):  # stops at the first that is in use
            for parent in self._made_parents:
                parent.rmdir()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in lower-case hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _resolve(out: str | Path) -> Path:
    """Absolute, links followed: replacing a linked bundle replaces what the link points at."""
    try:
        resolved = Path(out).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(f"{str(out)!r}: cannot be used for the bundle ({error})") from None
    if not str(out) or resolved == resolved.parent:
        raise BundleError(f"{str(out)!r}: name a folder for the bundle")
    return resolved


def _is_bundle(folder: Path) -> bool:
    """Whether an export made this folder: any version's, but not just any folder with a manifest.json."""
    try:
        data = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"schema_version", "model", "tome", "artifacts"} <= data.keys()


def _os_error(where: object, what: str, error: Exception) -> BundleError:
    return BundleError(f"{where}: {what} ({getattr(error, 'strerror', None) or error})")
