"""Pictures prepared ahead of the model: in worker processes, in order, in memory that does not grow.

`Pool` keeps a ring of slots filled: two batches and two pictures per worker, rounded up to whole batches. It
needs no thread: between two batches it hands out what is free, and the workers go on by themselves while the
model runs, so nothing depends on whether an engine lets other Python threads run.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tome_export.errors import RequestError, WorkerError
from tome_export.evaluation.slots import FAILED, MAX_TEXT, QUEUED, TAKEN, Slots, shared_file
from tome_export.evaluation.supply import Batch, Inline, Supply
from tome_export.evaluation.worker import NUMBER_BYTES, command
from tome_export.preprocess import Preprocess

MAX_WORKERS, MAX_BATCH = 256, 4096
_END_SECONDS = 5.0
_LOOK_SECONDS = 0.05  # how often a wait looks whether all workers live and nobody asked to stop


def open_supply(
    root: Path,
    paths: Sequence[str],
    recipes: Sequence[Preprocess],
    *,
    batch: int,
    workers: int | None,
    stopped: Callable[[], bool] = lambda: False,
) -> Supply:
    """Start preparing root/path for each path, by each recipe.

    workers: processes; None for one per usable processor, at most 16; 0 prepares in this process, while the
    model waits. Raises RequestError.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise RequestError(f"the batch should be from 1 to {MAX_BATCH}, not {batch}")
    if workers is None:
        workers = default_workers()
    if not 0 <= workers <= MAX_WORKERS:
        raise RequestError(f"there should be from 0 to {MAX_WORKERS} workers, not {workers}")
    if workers == 0:
        return Inline(root, paths, recipes, batch, stopped)
    if os.name != "posix":
        raise RequestError("worker processes need Linux or macOS; use --workers 0")
    return Pool(root, paths, recipes, batch, workers, stopped)


def default_workers() -> int:
    if os.name != "posix":
        return 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 16)


class Pool(Supply):
    """Worker processes and the ring of slots between them and the model."""

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        recipes: Sequence[Preprocess],
        batch: int,
        workers: int,
        stopped: Callable[[], bool],
    ):
        self._root, self._paths, self._batch, self._stopped = root, paths, batch, stopped
        # Picture i uses slot i % count; a multiple of the batch, so that batches do not wrap around the end.
        self._count = -(-(2 * batch + 2 * workers) // batch) * batch
        self._released = self._cursor = self._submitted = 0
        self._done = bytearray(self._count)
        self._processes: list[subprocess.Popen] = []
        self._tasks = self._results = -1
        memory = shared_file(self._count, recipes)
        try:
            self._slots = Slots(memory, self._count, recipes)
            self._start(memory, workers, list(recipes))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(memory)
        self._submit()

    def _start(self, memory: int, workers: int, recipes: list[Preprocess]) -> None:
        tasks, self._tasks = os.pipe()
        self._results, results = os.pipe()
        try:
            for _ in range(min(workers, max(1, len(self._paths)))):
                self._processes.append(
                    subprocess.Popen(
                        command(memory, self._count, recipes),
                        stdin=tasks,
                        stdout=results,
                        pass_fds=[memory],
                        start_new_session=True,  # so that Ctrl-C is the evaluation's alone, from the start
                        env=os.environ | {"OMP_NUM_THREADS": "1"},
                    )
                )
        except OSError as error:
            raise WorkerError(f"a worker process could not be started ({error.strerror})") from None
        finally:
            os.close(tasks)
            os.close(results)

    def _next(self) -> Batch | None:
        self._released = self._cursor
        self._submit()
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        # The ring may be full of what is held for this batch, when many pictures cannot be read.
        while len(good) < self._batch and self._cursor < self._submitted:
            slot = self._cursor % self._count
            if not self._wait_for(slot):
                return None
            state, _, text = self._slots.read_note(slot)
            if state == FAILED:
                bad.append((self._cursor, text.decode("utf-8", "replace")))
            else:
                good.append(self._cursor)
            self._cursor += 1
        self._check_workers()
        if not good and not bad:
            return None
        return Batch(tuple(good), tuple(bad), tuple(_rows(images, good) for images in self._slots.images))

    def _submit(self) -> None:
        """Queue as many pictures as there are free slots. Never blocks: a pipe holds more numbers."""
        while self._submitted < min(len(self._paths), self._released + self._count):
            slot = self._submitted % self._count
            path = os.fsencode(self._root / self._paths[self._submitted])
            self._done[slot] = 0
            if len(path) > MAX_TEXT:
                self._slots.write_note(slot, FAILED, b"the path is too long")
                self._done[slot] = 1
            else:
                self._slots.write_note(slot, QUEUED, path)
                try:
                    os.write(self._tasks, slot.to_bytes(NUMBER_BYTES, "little"))
                except BrokenPipeError:
                    raise self._all_ended() from None
            self._submitted += 1

    def _wait_for(self, slot: int) -> bool:
        """Whether the slot was finished, rather than somebody asked to stop."""
        while not self._done[slot]:
            if self._stopped():
                return False
            if not select.select([self._results], [], [], _LOOK_SECONDS)[0]:
                self._check_workers()
                continue
            numbers = os.read(self._results, 4096)
            if not numbers:
                raise self._all_ended()
            for at in range(0, len(numbers), NUMBER_BYTES):
                self._done[int.from_bytes(numbers[at : at + NUMBER_BYTES], "little")] = 1
        return True

    def _check_workers(self) -> None:
        for process in self._processes:
            status = process.poll()
            if status is None:
                continue
            how = f"was killed ({_signal_name(-status)})" if status < 0 else f"ended with status {status}"
            raise WorkerError(
                f"a worker process {how}{self._held_by(process.pid)}; "
                "if memory ran out, use fewer --workers or a smaller --batch"
            )

    def _all_ended(self) -> WorkerError:
        """What to raise when the pipes say that no worker is left, which may be before the system does."""
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_END_SECONDS)
        try:
            self._check_workers()
        except WorkerError as error:
            return error
        return WorkerError("all worker processes have closed their pipes; try again with --workers 0")

    def _held_by(self, worker: int) -> str:
        for position in range(self._released, self._submitted):
            state, owner, _ = self._slots.read_note(position % self._count)
            if state == TAKEN and owner == worker:
                return f" while reading {self._paths[position]}"
        return ""

    def close(self) -> None:
        for descriptor in (self._tasks, self._results):
            if descriptor >= 0:
                os.close(descriptor)
        self._tasks = self._results = -1
        for process in self._processes:
            process.kill()  # they hold nothing worth finishing
        for process in self._processes:
            process.wait()
        self._processes = []


def _rows(images: np.ndarray, positions: list[int]) -> np.ndarray:
    """The slots of these positions: a view if they lie side by side, else a copy."""
    slots = [position % len(images) for position in positions]
    if slots and slots[-1] - slots[0] == len(slots) - 1:
        return images[slots[0] : slots[-1] + 1]
    return images[slots]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
