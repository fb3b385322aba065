"""What Ray runs: `prepare`, in tasks, reads pictures; `Predictor`, in actors, holds a model and answers.

Both are imported by Ray's processes, on other machines too. A batch is a dict of arrays, a row an image.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tome_core.errors import TomeError
from tome_export.bundle import Bundle
from tome_export.errors import ImageError, RequestError, WorkerError
from tome_export.evaluation.outcomes import best
from tome_export.evaluation.worker import reason
from tome_export.offline.listing import Listing
from tome_export.offline.request import Request
from tome_export.preprocess import Preprocess, load_inputs
from tome_export.runtimes import open_runtime
from tome_export.runtimes.base import first_line

NOT_A_NUMBER = "the model's answer is not a number"

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """What both need to know. shards: numbers of those to do, int32. size: images in a shard."""

    listing: Listing
    shards: np.ndarray
    size: int
    batch: int
    bundle: str
    request: Request
    recipe: Preprocess
    threads: int


def prepare(numbers: Batch, job: Job) -> Iterator[Batch]:
    """The pictures of a shard, a batch at a time.

    numbers: "id", int64 `[1]`, an index into `job.shards`. Yields "shard" and "position" int32 `[n]`, "error"
    str `[n]`, "image" float32 `[n, 3, H, W]`, zeros where there is an error. Raises RequestError if this
    machine does not see the folders, or no longer."""
    source = Path(job.request.source)
    for index in numbers["id"]:
        shard = int(job.shards[index])
        start = shard * job.size
        stop = min(start + job.size, job.listing.count)
        try:
            paths = job.listing.paths(start, stop)
        except OSError:
            raise _unseen(job.listing.folder) from None
        for first in range(0, len(paths), job.batch):
            yield _prepared(source, shard, first, paths[first : first + job.batch], job.recipe)


def _prepared(source: Path, shard: int, first: int, paths: list[str], recipe: Preprocess) -> Batch:
    images = np.zeros((len(paths), 3, recipe.crop, recipe.crop), np.float32)
    errors = []
    for image, name in zip(images, paths, strict=True):
        path = str(source / name)
        error = ""
        try:
            image[:] = load_inputs(path, [recipe])[0][0]
        except (ImageError, MemoryError) as caught:
            error = reason(path, caught)
        errors.append(error)
    if all(errors) and not source.is_dir():  # a disk that went away is not a folder of broken files
        raise _unseen(source)
    return {
        "shard": np.full(len(paths), shard, np.int32),
        "position": np.arange(first, first + len(paths), dtype=np.int32),
        "error": np.array(errors, object),
        "image": images,
    }


class Predictor:
    """A model in an actor. A batch without its "image" and with "classes" int32 and "probabilities" float32,
    both `[n, top]`: -1 and NaN where "error" says why.

    What an actor raises reaches the command as text, between Ray's. So what goes wrong is an answer too:
    "trouble" is "" or the exit status and the message."""

    def __init__(self, job: Job):
        self._top, self._trouble = job.request.top, ""
        try:
            self._runtime = open_runtime(
                job.request.runtime,
                Bundle.open(job.bundle),
                precision=job.request.precision,
                device=job.request.device,
                threads=job.threads,
            )
        except Exception as error:
            self._trouble = _told(error)

    def __call__(self, batch: Batch) -> Batch:
        images, errors = batch.pop("image"), batch["error"].astype(object)
        good = errors == ""
        classes = np.full((len(errors), self._top), -1, np.int32)
        probabilities = np.full((len(errors), self._top), np.nan, np.float32)
        trouble = self._trouble
        if good.any() and not trouble:
            try:
                logits = self._runtime.run(images if good.all() else images[good])["logits"]
                classes[good], probabilities[good] = best(logits, self._top)
            except Exception as error:
                trouble = _told(error)
        errors[good & (classes[:, 0] < 0)] = NOT_A_NUMBER
        return batch | {
            "error": errors,
            "classes": classes,
            "probabilities": probabilities,
            "trouble": np.full(len(errors), trouble, object),
        }


def raise_trouble(batch: Batch) -> None:
    """Take "trouble" out of a batch of answers. Raises RequestError or WorkerError if there was some."""
    for told in batch.pop("trouble"):
        if told:
            status, message = told.split(" ", 1)
            raise RequestError(message) if status == "2" else WorkerError(message)


def _told(error: Exception) -> str:
    if isinstance(error, TomeError):
        return f"{error.exit_code} {error}"
    return f"1 the model failed ({type(error).__name__}: {first_line(error)})"


def _unseen(folder: Path) -> RequestError:
    return RequestError(
        f"{folder}: not seen on {socket.gethostname()}; every machine needs it under the same path"
    )
