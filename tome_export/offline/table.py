"""Rows of answers as parquet: one small file a shard, and all of them as the one that was asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tome_export.errors import MissingExtraError, RequestError
from tome_export.offline.request import Request

GROUP_ROWS = 50_000
"""Rows of a row group in the merged file, about, and so what merging holds in memory."""

INSTALL = 'pip install "tome-export[batch]"'
SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Answers:
    """Of one shard, in its order: `classes` int32 `[n, k]` and `probabilities` float32 `[n, k]`, best first,
    and `errors`, one a row, "" where there are answers."""

    classes: np.ndarray
    probabilities: np.ndarray
    errors: Sequence[str]


@dataclass(frozen=True)
class Summary:
    """images, errors: rows, and how many of them have an error; `first`: path and error of the first few."""

    images: int
    errors: int
    first: tuple[tuple[str, str], ...]


def schema(request: Request) -> Any:
    """The columns; what was asked is in the file's metadata under "tome_export"."""
    pa, _ = load_pyarrow()
    columns = [
        ("path", pa.string()),
        ("class_index", pa.int32()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("top_indices", pa.list_(pa.int32())),
        ("top_labels", pa.list_(pa.string())),
        ("top_probabilities", pa.list_(pa.float32())),
        ("error", pa.string()),
    ]
    return pa.schema(columns, metadata={"tome_export": json.dumps(asdict(request))})


def write_part(
    file: Path, request: Request, paths: Sequence[str], answers: Answers, labels: Sequence[str] | None
) -> None:
    """One shard; the name appears when the contents are on disk. A path that is not UTF-8 has `\\x..` for the
    bytes that are not. labels: of the classes; None names them "class N". Raises OSError."""
    pa, parquet = load_pyarrow()
    good = [not error for error in answers.errors]
    classes = [row if ok else None for row, ok in zip(answers.classes.tolist(), good, strict=True)]
    probabilities = [
        row if ok else None for row, ok in zip(answers.probabilities.tolist(), good, strict=True)
    ]
    names = [row and [labels[index] if labels else f"class {index}" for index in row] for row in classes]
    columns = [
        [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths],
        [row and row[0] for row in classes],
        [row and row[0] for row in names],
        [row and row[0] for row in probabilities],
        classes,
        names,
        probabilities,
        [error or None for error in answers.errors],
    ]
    described = schema(request)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, described, strict=True)]
    partial = file.with_name(f".{file.name}.partial")
    with open(partial, "wb") as stream:
        parquet.write_table(pa.Table.from_arrays(arrays, schema=described), stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def merge(parts: Iterable[Path], out: Path, request: Request, images: int) -> None:
    """Write the rows of all parts, in order, to `out`. Raises RequestError for a damaged part, OSError."""
    pa, parquet = load_pyarrow()
    total, waiting = 0, []
    with open(out, "wb") as stream:
        with parquet.ParquetWriter(stream, schema(request)) as writer:
            for part in parts:
                try:
                    waiting.append(parquet.ParquetFile(part).read())
                except (OSError, pa.ArrowException):
                    raise RequestError(f"{part}: is damaged; remove it and run the command again") from None
                total += len(waiting[-1])
                if sum(map(len, waiting)) >= GROUP_ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        stream.flush()
        os.fsync(stream.fileno())
    if total != images:
        raise RequestError(f"{out.parent}: its parts have {total} images in place of {images}; remove it")


def summary(file: Path) -> Summary:
    """Of a merged file, a row group at a time."""
    _, parquet = load_pyarrow()
    images = errors = 0
    first: list[tuple[str, str]] = []
    with parquet.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            table = opened.read_row_group(group, ["path", "error"])
            failed = table.filter(table["error"].is_valid())
            images, errors = images + len(table), errors + len(failed)
            rows = failed.slice(0, SHOWN_ERRORS - len(first)).to_pylist()
            first += [(row["path"], row["error"]) for row in rows]
    return Summary(images, errors, tuple(first))


def load_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises MissingExtraError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(f"the pyarrow package is not installed: {INSTALL}") from None
    return pyarrow, pyarrow.parquet
