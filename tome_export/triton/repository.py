"""Write a bundle into a model repository: four model folders, each of which appears complete or not at all.

A new repository appears as a whole. Into one that is there, the models are moved one by one, the ensemble,
which needs the others, last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from tome_export import staging
from tome_export.bundle import Bundle, sha256_of
from tome_export.errors import BundleError, RequestError
from tome_export.manifest import Artifact
from tome_export.triton import config
from tome_export.triton.pbtxt import as_text
from tome_export.triton.serving import Serving

# What the preprocess model runs of this program, as it is.
_COPIED = (
    "tome_core/errors.py",
    "tome_export/errors.py",
    "tome_export/preprocess.py",
    "tome_export/resize_opencv.py",
)
_ROOT = Path(__file__).resolve().parents[2]


def write_repository(
    bundle: Bundle, out: str | Path, serving: Serving, force: bool = False
) -> dict[str, dict[str, int]]:
    """Add the four models to the repository `out`, which is created if need be.

    force: replace models of these names. Returns, for each model folder, its files and their sizes in bytes.
    Raises RequestError, BundleError.
    """
    artifact = bundle.artifact("onnx", serving.precision)
    out = Path(out).resolve()
    messages = _messages(bundle, serving)
    _check_destination(out, list(messages), force)
    try:
        # In the repository if there is one, which may be a file system of its own.
        with staging.partial_folder(out / serving.name if out.is_dir() else out) as folder:
            for name, message in messages.items():
                (folder / name / "1").mkdir(parents=True)
                (folder / name / "config.pbtxt").write_text(as_text(message), encoding="utf-8")
            _fill_tensor_model(bundle, artifact, folder / serving.name)
            _fill_preprocess(bundle, folder / f"{serving.name}_preprocess")
            _fill_postprocess(bundle, folder / f"{serving.name}_postprocess")
            found = {name: _sizes(folder / name) for name in messages}
            _check_destination(out, list(messages), force)
            if not out.exists():
                staging.swap_in(folder, out)
            else:
                for name in messages:
                    staging.swap_in(folder / name, out / name)
    except OSError as error:
        where = error.filename or out
        raise BundleError(f"{where}: could not write the repository ({error.strerror or error})") from None
    return found


def _messages(bundle: Bundle, serving: Serving) -> dict[str, Mapping[str, Any]]:
    """Configurations by name, in the order in which they are moved into place."""
    manifest = bundle.manifest
    named = manifest.labels is not None and not any(len(each.splitlines()) > 1 for each in manifest.labels)
    messages = (
        config.tensor_model(manifest, serving, named),
        config.preprocess_model(manifest, serving),
        config.postprocess_model(manifest, serving),
        config.ensemble(manifest, serving),
    )
    return {message["name"]: message for message in messages}


def _check_destination(out: Path, names: list[str], force: bool) -> None:
    """Raises RequestError: never the wrong thing is replaced."""
    if (out / "manifest.json").exists():
        raise RequestError(f"{out}: is an exported bundle; choose another folder for the repository")
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out}: is a file; choose a folder for the repository")
    for name in names:
        model = out / name
        if model.exists() and not force:
            raise RequestError(
                f"{model}: already exists; add --force to replace it, or choose another --name"
            )
        if model.exists() and any(model.iterdir()) and not (model / "config.pbtxt").is_file():
            raise RequestError(f"{model}: is not a Triton model, so --force does not replace it")


def _fill_tensor_model(bundle: Bundle, artifact: Artifact, folder: Path) -> None:
    """The model's files, checked against their hashes. Raises BundleError."""
    graph = artifact.file(".onnx")
    for name, digest in artifact.files.items():
        source = bundle.path / name
        if not source.is_file():
            raise BundleError(f"{source}: missing from the bundle; export it again")
        if sha256_of(source) != digest:
            raise BundleError(f"{source}: not as exported; export the bundle again")
        # The graph names its weights' file, which therefore keeps its name.
        target = config.MODEL_FILE if name == graph else Path(name).name
        _link_or_copy(source, folder / "1" / target)
    labels = folder / config.LABELS_FILE
    if "label_filename" in (folder / "config.pbtxt").read_text(encoding="utf-8"):
        labels.write_text("\n".join(bundle.manifest.labels) + "\n", encoding="utf-8")


def _fill_preprocess(bundle: Bundle, folder: Path) -> None:
    version = folder / "1"
    _write(version / "model.py", _template("preprocess.py"))
    _write(version / "preprocess.json", json.dumps(asdict(bundle.manifest.preprocess), indent=2) + "\n")
    for name in _COPIED:
        target = version / name
        target.parent.mkdir(exist_ok=True)
        (target.parent / "__init__.py").touch()
        shutil.copyfile(_ROOT / name, target)


def _fill_postprocess(bundle: Bundle, folder: Path) -> None:
    _write(folder / "1" / "model.py", _template("postprocess.py"))
    labels = json.dumps(bundle.manifest.labels, ensure_ascii=False, indent=0)
    _write(folder / "1" / "labels.json", labels + "\n")


def _template(name: str) -> str:
    return (resources.files("tome_export.triton") / "files" / name).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link where there can be one: hundreds of megabytes, and a bundle's files are never changed."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
