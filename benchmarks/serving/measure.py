"""Throughput of a server in turns with that of its bundle in this process, and what HTTP adds to gRPC."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.clients import Questions, open_client
from benchmarks.serving.load import Load, Record
from benchmarks.serving.server import Server
from tome_export.bundle import Bundle
from tome_export.runtimes import open_runtime

_METRICS_SECONDS = 5.0  # until all that was done is in /metrics


@dataclass(frozen=True)
class Throughput:
    """images_per_second, alone: of the server and of the bundle in this process, medians of the turns. ratio:
    low, median and high quartile of the turns' ratios. mean_batch: images in a run; batch: of the runs in
    this process."""

    record: Record
    seconds: float
    images_per_second: float
    alone: float
    ratio: tuple[float, float, float]
    mean_batch: float
    batch: int
    cpu: dict[str, float]


def in_turns(
    server: Server,
    questions: Questions,
    bundle: Path,
    runtime: str,
    precision: str,
    threads: int,
    clients: int,
    protocols: Sequence[str],
    seconds: float,
    turns: int,
) -> Throughput:
    """Load for `seconds` in all. After each of the `turns`, the bundle is run in this process for half as
    long, at the mean batch of the first turn, with as many threads; the server has nothing to do then."""
    served, alone = [], []
    images, runs = server.counts()
    batch, answered, cpu = 0, 0, dict.fromkeys(server.cpu_seconds(), 0.0)
    with Load(server, questions, clients, protocols) as load:
        with open_runtime(runtime, Bundle.open(bundle), precision=precision, threads=threads) as opened:
            load.ask_for(min(2.0, seconds))  # whatever is done only once
            for _ in range(turns):
                before, already = server.cpu_seconds(), len(load.record.answered)
                begin, end = load.ask_for(seconds / turns)
                after, answered = server.cpu_seconds(), answered + len(load.record.answered) - already
                cpu = {kind: spent + after[kind] - before[kind] for kind, spent in cpu.items()}
                served.append(load.record.between(begin, end) / (end - begin))
                if not batch:
                    time.sleep(_METRICS_SECONDS)
                    batch = max(1, round(_mean(server, images, runs)))
                alone.append(_images_per_second(opened, questions, batch, seconds / turns / 3))
        time.sleep(_METRICS_SECONDS)
        mean = _mean(server, images, runs)
    low, middle, high = np.percentile(np.array(served) / np.array(alone), (25, 50, 75))
    return Throughput(
        load.record,
        seconds,
        float(np.median(served)),
        float(np.median(alone)),
        (float(low), float(middle), float(high)),
        mean,
        batch,
        {kind: 1000 * spent / max(1, answered) for kind, spent in cpu.items()},
    )


def _mean(server: Server, images: float, runs: float) -> float:
    now = server.counts()
    return (now[0] - images) / max(1.0, now[1] - runs)


def _images_per_second(opened, questions: Questions, batch: int, seconds: float) -> float:
    image = questions.images[np.arange(batch) % len(questions.images)]
    opened.run(image)
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        opened.run(image)
        count += batch
    return count / (now - start)


@dataclass(frozen=True)
class Added:
    """Milliseconds, medians: one client at a time. added: quartiles of the pairs' differences, HTTP minus
    gRPC."""

    http: float
    grpc: float
    added: tuple[float, float, float]


def http_and_grpc(server: Server, questions: Questions, pairs: int) -> Added:
    """The same tensor over both, in turns, who is first too."""
    clients = {name: open_client(name, questions, server.http, server.grpc) for name in ("http", "grpc")}
    taken: dict[str, list[float]] = {name: [] for name in clients}
    for pair in range(-3, pairs):
        for name in sorted(clients, reverse=bool(pair % 2)):
            start = time.perf_counter()
            clients[name].ask(0)
            if pair >= 0:
                taken[name].append(1000 * (time.perf_counter() - start))
    for client in clients.values():
        client.close()
    difference = np.array(taken["http"]) - np.array(taken["grpc"])
    low, middle, high = np.percentile(difference, (25, 50, 75))
    medians = {name: float(np.median(values)) for name, values in taken.items()}
    return Added(medians["http"], medians["grpc"], (float(low), float(middle), float(high)))
