"""Several requests, one run of the model.

Requests wait in line while the model runs. When it is free, it takes those that wait, up to `max_batch` rows,
after giving others `max_delay` to join. A request whose client has gone leaves the line.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

Outputs = Mapping[str, np.ndarray]


@dataclass
class _Waiting:
    rows: np.ndarray
    done: asyncio.Future
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Call it with rows `[n, ...]`, n at most `max_batch`; the outputs are for these rows alone.

    run: a batch -> outputs by name, called in `engine`, one batch at a time. max_delay: seconds. ran: told
    the rows and the seconds of every run. Use it in one event loop.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Outputs],
        engine: Executor,
        max_batch: int,
        max_delay: float,
        ran: Callable[[int, float], None] = lambda rows, seconds: None,
    ):
        self._run, self._engine = run, engine
        self._max_batch, self._max_delay, self._ran = max_batch, max_delay, ran
        self._line: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task | None = None

    def __len__(self) -> int:
        """Rows in line."""
        return sum(len(each.rows) for each in self._line)

    async def __call__(self, rows: np.ndarray) -> Outputs:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        waiting = _Waiting(rows, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._arrived.set()
        return await waiting.done

    async def _work(self) -> None:
        while True:
            await self._wait_for_a_batch()
            batch = self._take()
            if batch:
                await self._answer(batch)

    async def _wait_for_a_batch(self) -> None:
        while not self._line:
            self._arrived.clear()
            await self._arrived.wait()
        deadline = self._line[0].since + self._max_delay
        while len(self) < self._max_batch and (left := deadline - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except asyncio.TimeoutError:
                return

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._line and rows + len(self._line[0].rows) <= self._max_batch:
            waiting = self._line.popleft()
            if not waiting.done.done():  # else its client is gone
                batch.append(waiting)
                rows += len(waiting.rows)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            outputs = await self._run_rows([each.rows for each in batch])
        except Exception as error:
            if len(batch) > 1:  # whichever it was, the others did nothing wrong
                for waiting in batch:
                    await self._answer([waiting])
            elif not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        start = 0
        for waiting in batch:
            stop = start + len(waiting.rows)
            if not waiting.done.done():
                waiting.done.set_result({name: output[start:stop] for name, output in outputs.items()})
            start = stop

    async def _run_rows(self, parts: list[np.ndarray]) -> Outputs:
        def run() -> tuple[Outputs, float]:
            start = time.perf_counter()
            outputs = self._run(parts[0] if len(parts) == 1 else np.concatenate(parts))
            return outputs, time.perf_counter() - start

        outputs, seconds = await asyncio.get_running_loop().run_in_executor(self._engine, run)
        self._ran(sum(map(len, parts)), seconds)
        return outputs
