"""One streaming execution of Ray Data over the shards that are left: read, predict, write each as it is
complete.

A shard is one row of the dataset and one reading task, so that few are in progress at a time and the plan is
small however many images there are. Models stay in their actors from the first shard to the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tome_core.errors import TomeError
from tome_export.bundle import Bundle
from tome_export.errors import WorkerError
from tome_export.evaluation.interrupt import Interrupt
from tome_export.offline.cluster import Layout, joined, layout_here, layout_there, started
from tome_export.offline.gather import Gatherer
from tome_export.offline.parts import Parts
from tome_export.offline.stages import Job, Predictor, prepare, raise_trouble
from tome_export.runtimes.base import first_line

_LEAST_STORE = 200_000_000
_BATCHES_A_PROCESS = 6  # in shared memory, waiting or at work
_RETRIES = 2  # of a task whose process died


@dataclass(frozen=True)
class Resources:
    """What a run may use; None chooses. See `predict_many`."""

    batch: int
    actors: int | None
    threads: int | None
    workers: int | None
    address: str


def run(
    parts: Parts, todo: list[int], bundle: Bundle, resources: Resources, interrupt: Interrupt
) -> Iterator[int]:
    """Do the shards `todo`; yields how many images of this run are answered. Ends early if interrupted.

    Raises RequestError, BundleError, MissingExtraError, WorkerError, OSError.
    """
    with _connected(parts, bundle, resources) as (ray, plan), interrupt:
        job = Job(
            parts.listing,
            np.array(todo, np.int32),
            parts.description.shard,
            resources.batch,
            str(bundle.path),
            parts.description.request,
            bundle.manifest.preprocess,
            plan.threads,
        )
        gatherer = Gatherer()
        try:
            with closing(_batches(ray, plan, job, _image_bytes(bundle) * resources.batch)) as batches:
                for batch in batches:
                    raise_trouble(batch)
                    for shard, answers in gatherer.add(batch, lambda shard: _length(parts.bounds(shard))):
                        parts.write(shard, answers)
                    yield gatherer.rows
                    if interrupt.asked:
                        return
        except ray.exceptions.RayError as error:
            raise _plain(error) from error


def _batches(ray: Any, plan: Layout, job: Job, batch_bytes: int) -> Iterator[dict[str, np.ndarray]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = batch_bytes
    data = ray.data.range(len(job.shards), override_num_blocks=len(job.shards))
    data = data.map_batches(
        prepare,
        batch_size=1,
        fn_kwargs={"job": job},
        compute=ray.data.TaskPoolStrategy(size=plan.workers),
        num_cpus=1,
        max_retries=_RETRIES,
    )
    data = data.map_batches(
        Predictor,
        batch_size=job.batch,
        fn_constructor_kwargs={"job": job},
        compute=ray.data.ActorPoolStrategy(size=plan.actors),
        num_cpus=plan.actor_cpus,
        num_gpus=plan.actor_gpus,
    )
    yield from data.iter_batches(batch_size=None, batch_format="numpy")


@contextmanager
def _connected(parts: Parts, bundle: Bundle, resources: Resources) -> Iterator[tuple[Any, Layout]]:
    asked = resources.actors, resources.threads, resources.workers
    cuda = parts.description.request.device == "cuda"
    if resources.address:
        with joined(resources.address) as ray:
            yield ray, layout_there(ray, *asked, cuda)
    else:
        plan = layout_here(*asked, cuda)
        batches = _BATCHES_A_PROCESS * (plan.actors + plan.workers)
        store = max(_LEAST_STORE, batches * resources.batch * _image_bytes(bundle))
        with started(plan, store, parts.scratch_note) as ray:
            yield ray, plan


def _image_bytes(bundle: Bundle) -> int:
    return 3 * bundle.manifest.preprocess.crop**2 * 4


def _length(bounds: tuple[int, int]) -> int:
    return bounds[1] - bounds[0]


def _plain(error: Exception) -> TomeError:
    """What went wrong in one of Ray's processes: our own error if it is one."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, TomeError):
        return cause
    return WorkerError(
        f"Ray gave up ({first_line(error)}); what is finished is kept, and the same command goes on"
    )
