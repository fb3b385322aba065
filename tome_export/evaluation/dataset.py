"""Labelled pictures on disk: a folder of class folders, or a list of `path label` lines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tome_export.errors import RequestError
from tome_export.evaluation.classes import match_classes

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .mpo .jp2 .avif".split()
)
"""Endings, in lower case, of the files in class folders that are taken for pictures."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture: its path below the data folder, as shown, and its class index."""

    path: str
    label: int


@dataclass(frozen=True)
class Dataset:
    """`samples` below the folder `root`; `rule`: how names became class indices; `ignored`: how many files in
    the folder are not pictures by their ending, or lie outside the class folders."""

    root: Path
    samples: tuple[Sample, ...]
    rule: str
    ignored: int = 0

    def limited(self, count: int | None) -> Dataset:
        """At most `count` samples, spread evenly over all of them: the first ones would be of few classes."""
        total = len(self.samples)
        if count is None or count >= total:
            return self
        if count < 1:
            raise RequestError(f"--limit should be at least 1, not {count}")
        return replace(self, samples=tuple(self.samples[i * total // count] for i in range(count)))


def read_dataset(
    root: str | Path,
    labels_file: str | Path | None,
    labels: Sequence[str] | None,
    classes: int,
) -> Dataset:
    """The pictures below `root`: those that `labels_file` lists, or without one those in its class folders.

    labels, classes: the bundle's labels, or None, and its number of classes.
    Raises RequestError: nothing there, or names that do not tell the classes (`match_classes`).
    """
    root = Path(root)
    if not root.is_dir():
        raise RequestError(f"{root}: is not a folder" if root.exists() else f"{root}: no such folder")
    if labels_file is None:
        return _read_folder(root, labels, classes)
    return _read_list(root, Path(labels_file), labels, classes)


def _read_folder(root: Path, labels: Sequence[str] | None, classes: int) -> Dataset:
    try:
        with os.scandir(root) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        folders = sorted(entry.name for entry in visible if entry.is_dir())
        if not folders:
            raise RequestError(f"{root}: has no class folders; name a list of pictures with --labels")
        indices, rule = match_classes(folders, labels, classes, folders=True, where=str(root))
        samples, ignored = [], len(visible) - len(folders)
        for folder in folders:
            found = list(files_below(root, folder))
            pictures = [path for path in found if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES]
            ignored += len(found) - len(pictures)
            samples += [Sample(path, indices[folder]) for path in pictures]
    except OSError as error:
        raise RequestError(f"{error.filename}: cannot be listed ({error.strerror})") from None
    if not samples:
        raise RequestError(f"{root}: no pictures in its {len(folders)} class folders")
    return Dataset(root, tuple(samples), rule, ignored)


def files_below(root: Path, folder: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Files below root/folder, sorted, as paths below root. Hidden ones are skipped; links are followed, but
    not round in circles. Holds the names of one folder a level in memory. Raises OSError."""
    status = os.stat(root / folder)
    here = status.st_dev, status.st_ino
    if here in above:
        return
    with os.scandir(root / folder) as entries:
        visible = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in visible:
        path = f"{folder}/{name}" if folder else name
        if is_folder:
            yield from files_below(root, path, (*above, here))
        else:
            yield path


def _read_list(root: Path, file: Path, labels: Sequence[str] | None, classes: int) -> Dataset:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise RequestError(f"{file}: cannot be read as a list of labels ({reason})") from None
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        line = line.rstrip("\r")
        # A tab sets off a label that holds spaces; otherwise the label is the last word.
        path, separator, label = line.rpartition("\t") if "\t" in line else line.rstrip().rpartition(" ")
        if not path.strip() or not label.strip():
            raise RequestError(
                f"{file}, line {number}: should be a path, a space or a tab, and a label, not {line[:80]!r}"
            )
        pairs.append((path.strip(), label.strip()))
    if not pairs:
        raise RequestError(f"{file}: lists no pictures")
    names = tuple(dict.fromkeys(label for _, label in pairs))
    indices, rule = match_classes(names, labels, classes, folders=False, where=str(file))
    return Dataset(root, tuple(Sample(path, indices[label]) for path, label in pairs), rule)
