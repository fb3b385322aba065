"""The batcher: every request gets the answer to its own rows, whatever becomes of the others."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tome_export.serving.batching import Batcher


class Engine:
    """Doubles; keeps the sizes of its batches; fails at rows of 13. Waits for `gate` first."""

    def __init__(self):
        self.sizes, self.gate = [], threading.Event()
        self.gate.set()

    def run(self, rows):
        self.gate.wait(10)
        self.sizes.append(len(rows))
        if (rows == 13).any():
            raise ValueError("13")
        return {"double": rows * 2, "index": np.arange(len(rows))}


def together(engine, work, max_batch=4, max_delay=0.02):
    async def run():
        with ThreadPoolExecutor(1) as pool:
            return await asyncio.wait_for(work(Batcher(engine.run, pool, max_batch, max_delay)), 20)

    return asyncio.run(run())


def rows(*values):
    return np.array(values, np.float32)[:, None]


def test_requests_of_several_sizes_each_get_their_own():
    engine = Engine()
    requests = [rows(*range(start, start + 1 + start % 3)) for start in range(20, 40)]

    async def work(batcher):
        return await asyncio.gather(*map(batcher, requests))

    for request, answer in zip(requests, together(engine, work), strict=True):
        np.testing.assert_array_equal(answer["double"], request * 2)
    assert max(engine.sizes) <= 4 and len(engine.sizes) < len(requests)


def test_what_comes_while_the_model_runs_goes_into_one_batch():
    engine = Engine()
    engine.gate.clear()

    async def work(batcher):
        first = asyncio.create_task(batcher(rows(1)))
        await asyncio.sleep(0.1)  # it runs, and waits at the gate
        others = [asyncio.create_task(batcher(rows(value))) for value in (2, 3, 4)]
        await asyncio.sleep(0.05)
        engine.gate.set()
        await asyncio.gather(first, *others)

    together(engine, work)
    assert engine.sizes == [1, 3]


def test_one_that_fails_fails_alone():
    async def work(batcher):
        return await asyncio.gather(*(batcher(rows(value)) for value in (1, 13, 2)), return_exceptions=True)

    one, wrong, two = together(Engine(), work)
    assert isinstance(wrong, ValueError)
    assert one["double"] == 2 and two["double"] == 4


def test_who_is_gone_is_not_waited_for_and_not_run():
    engine = Engine()
    engine.gate.clear()

    async def work(batcher):
        first = asyncio.create_task(batcher(rows(1)))
        await asyncio.sleep(0.1)
        gone, stays = asyncio.create_task(batcher(rows(2))), asyncio.create_task(batcher(rows(3)))
        await asyncio.sleep(0.05)
        gone.cancel()
        first.cancel()  # this one runs already; its answer goes nowhere
        engine.gate.set()
        answer = await stays
        assert len(batcher) == 0
        return answer

    assert together(engine, work)["double"] == 6
    assert engine.sizes == [1, 1]


def test_a_lone_request_does_not_wait_longer_than_the_delay():
    async def work(batcher):
        start = time.monotonic()
        await batcher(rows(1))
        return time.monotonic() - start

    assert together(Engine(), work, max_delay=0.3) >= 0.3
    assert together(Engine(), work, max_delay=0.0) < 0.3
    assert together(Engine(), work, max_batch=1, max_delay=5.0) < 5  # it is full


@pytest.mark.parametrize("max_batch", [1, 3, 8])
def test_no_batch_is_larger_than_allowed(max_batch):
    engine = Engine()

    async def work(batcher):
        await asyncio.gather(*(batcher(rows(*range(1 + value % max_batch))) for value in range(30)))

    together(engine, work, max_batch)
    assert max(engine.sizes) <= max_batch
    assert sum(engine.sizes) == sum(1 + value % max_batch for value in range(30))
