"""Classify every picture below a folder, into a parquet file; a killed run goes on where it was.

from tome_export.predict_many import predict_many

result = predict_many("./infer", "./photos", "answers.parquet")
result.images, result.errors     # 1000000, 12

Ray Data runs it: tasks read pictures, actors hold models. The command's process only writes what comes back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tome_export.bundle import Bundle
from tome_export.errors import RequestError
from tome_export.evaluation.interrupt import Interrupt
from tome_export.evaluation.pool import MAX_BATCH, MAX_WORKERS
from tome_export.offline.cluster import load_ray
from tome_export.offline.parts import open_parts
from tome_export.offline.request import make_request
from tome_export.offline.run import Resources, run
from tome_export.offline.table import load_pyarrow, summary
from tome_export.runtimes.base import check_threads

BATCH, TOP = 32, 5


class Follow:
    """Follows a run; does nothing by itself."""

    def started(self, total: int, before: int) -> None:
        """`before` of `total` images were answered by earlier runs; the models load now."""

    def advanced(self, done: int) -> None:
        """`done` images, the earlier ones included, are answered."""


@dataclass(frozen=True)
class Outcome:
    """images: in the listing; before: answered by earlier runs; done: in all; errors: rows with an error, and
    `first`: path and reason of the first few; ignored: files that are not pictures by their ending. seconds:
    of this run, from the first answer asked for. interrupted: Ctrl-C or SIGTERM, so there is no file yet."""

    out: Path
    runtime: str
    precision: str
    images: int
    before: int
    done: int
    errors: int
    first: tuple[tuple[str, str], ...]
    ignored: int
    seconds: float
    interrupted: bool

    @property
    def images_per_second(self) -> float:
        """Of this run, the start of the models included."""
        return (self.done - self.before) / self.seconds if self.seconds else 0.0


def predict_many(
    folder: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    runtime: str = "",
    precision: str = "fp32",
    device: str = "cpu",
    top: int = TOP,
    batch: int = BATCH,
    actors: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    shard: int | None = None,
    address: str = "",
    overwrite: bool = False,
    follow: Follow | None = None,
) -> Outcome:
    """Classify the pictures below `source` with the bundle in `folder`.

    batch: images at a time. actors: processes that hold a model, with `threads` each. workers: tasks that
    read pictures. shard: images in a part, so what a kill may lose for each worker; None chooses. address: of
    a Ray cluster that runs, whose machines see all three paths; "" uses this machine. Raises RequestError,
    BundleError, MissingExtraError, WorkerError, OSError."""
    check_threads(threads)
    _check_counts(batch=(batch, MAX_BATCH), actors=(actors, MAX_WORKERS), workers=(workers, MAX_WORKERS))
    _check_counts(shard=(shard, 1_000_000))
    load_ray(address)  # an extra that is missing is said first
    load_pyarrow()
    bundle = Bundle.open(Path(folder).resolve())
    request = make_request(bundle, source, runtime, precision, device, top)
    resources = Resources(batch, actors, threads, workers, address)
    follow = follow or Follow()
    with open_parts(Path(out), request, bundle.manifest.labels, shard, overwrite) as parts:
        todo = [] if parts.is_moving else parts.unfinished()
        images = parts.description.images
        before = images - sum(stop - start for start, stop in map(parts.bounds, todo))
        done, seconds, interrupt = before, 0.0, Interrupt()
        if todo:
            follow.started(images, before)
            begin = time.perf_counter()
            for rows in run(parts, todo, bundle, resources, interrupt):
                done = before + rows
                follow.advanced(done)
            seconds = time.perf_counter() - begin
        if not interrupt.asked:
            parts.finish()
    found = None if interrupt.asked else summary(Path(out))
    return Outcome(
        out=Path(out),
        runtime=request.runtime,
        precision=precision,
        images=images,
        before=before,
        done=done,
        errors=found.errors if found else 0,
        first=found.first if found else (),
        ignored=parts.description.ignored,
        seconds=seconds,
        interrupted=interrupt.asked,
    )


def _check_counts(**counts: tuple[int | None, int]) -> None:
    for name, (value, most) in counts.items():
        if value is not None and not 1 <= value <= most:
            raise RequestError(f"--{name} should be from 1 to {most}, not {value}")
