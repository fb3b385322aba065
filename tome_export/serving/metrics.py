"""Counts and times of a server, in Prometheus's text form.

Every process hands its own to Ray, whose agent on each machine exports them all; `exported` fetches them
there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

_MILLISECONDS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
_ROWS = [1, 2, 4, 8, 16, 32, 64, 128]
_SHOWN = re.compile(r"(# (HELP|TYPE) )?ray_tome_")
# Ray's own labels, the same everywhere; its WorkerId tells replicas apart.
_NOISE = re.compile(r'(?<=[{,])(Component|NodeAddress|SessionName|Version|otel_\w+)="[^"]*",?')
_FETCH_SECONDS = 5.0


class Metrics:
    """Of a replica. Create it inside Ray."""

    def __init__(self, model: str):
        from ray.util.metrics import Counter, Gauge, Histogram

        tags = ("model", "protocol", "status")
        self._requests = Counter("tome_requests", "Requests answered, by HTTP or gRPC status.", tags)
        self._milliseconds = Histogram(
            "tome_request_ms",
            "Milliseconds in a replica, from the request to its answer.",
            _MILLISECONDS,
            tags[:2],
        )
        # Ray adds up a histogram by the middles of its buckets, so what means are made of is counted as well.
        self._images = Counter("tome_images", "Images that the model has run on.", tags[:1])
        self._runs = Counter("tome_runs", "Runs of the model: images / runs is the mean batch.", tags[:1])
        self._busy = Counter("tome_run_seconds", "Seconds that the model has run.", tags[:1])
        self._rows = Histogram("tome_batch_rows", "Images in a run of the model.", _ROWS, tags[:1])
        self._run = Histogram("tome_run_ms", "Milliseconds of a run of the model.", _MILLISECONDS, tags[:1])
        self._line = Gauge("tome_queue_rows", "Images that wait for the model.", tags[:1])
        counters = (self._requests, self._images, self._runs, self._busy)
        for each in (*counters, self._milliseconds, self._rows, self._run, self._line):
            each.set_default_tags({"model": model})

    def answered(self, protocol: str, status: str, seconds: float) -> None:
        self._requests.inc(1, {"protocol": protocol, "status": status})
        self._milliseconds.observe(seconds * 1000, {"protocol": protocol})

    def ran(self, rows: int, seconds: float) -> None:
        self._images.inc(rows)
        self._runs.inc(1)
        self._busy.inc(max(seconds, 1e-9))
        self._rows.observe(rows)
        self._run.observe(max(seconds * 1000, 1e-3))

    def waiting(self, rows: int) -> None:
        self._line.set(rows)


async def exported() -> bytes:
    """What Ray's agent on this machine exports of this server's replicas here. Raises Refusal."""
    from tome_export.serving.refusal import Refusal

    try:
        text = await asyncio.wait_for(_fetch(*_agent()), _FETCH_SECONDS)
    except (OSError, asyncio.TimeoutError, ValueError, LookupError):
        raise Refusal(503, "the metrics cannot be had at the moment") from None
    lines = (_NOISE.sub("", line) for line in text.splitlines(keepends=True) if _SHOWN.match(line))
    return "".join(lines).encode()


def _agent() -> tuple[str, int]:
    import ray

    here = ray.get_runtime_context().get_node_id()
    node: Mapping = next(node for node in ray.nodes() if node["NodeID"] == here)
    return node["NodeManagerAddress"], node["MetricsExportPort"]


async def _fetch(host: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ValueError("not exported")
    return body.decode("utf-8", "replace")
