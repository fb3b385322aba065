"""Figures as text and as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.serving.drills import Killed, Stopped
from benchmarks.serving.hostile import Told
from benchmarks.serving.load import Record
from benchmarks.serving.measure import Added, Throughput
from benchmarks.serving.server import Memory, sorted_thirds
from tome_export.console import table

_PROTOCOLS = {"http": "HTTP, tensor", "grpc": "gRPC, tensor", "jpeg": "HTTP, /predict"}


def latencies(record: Record) -> dict[str, dict[str, float]]:
    """Protocol -> requests, and milliseconds p50, p95, p99."""
    found = {}
    for name in _PROTOCOLS:
        seconds = record.seconds(name)
        if len(seconds):
            p50, p95, p99 = 1000 * np.percentile(seconds, (50, 95, 99))
            found[name] = {"requests": len(seconds), "p50": p50, "p95": p95, "p99": p99}
    return found


def throughput(found: Throughput) -> str:
    low, middle, high = found.ratio
    rows = [
        ("served", f"{found.images_per_second:.1f} images/s"),
        ("in this process", f"{found.alone:.1f} images/s at batch {found.batch}"),
        ("ratio", f"{middle:.2f} ({low:.2f} to {high:.2f})"),
        ("mean batch", f"{found.mean_batch:.1f}"),
        ("CPU ms an image", ", ".join(f"{kind} {spent:.1f}" for kind, spent in found.cpu.items())),
    ]
    return f"throughput\n{table(rows)}\n\n{latency_table(found.record)}{trouble(found.record)}"


def latency_table(record: Record) -> str:
    rows: list[tuple[str, ...]] = [("", "requests", "p50 ms", "p95 ms", "p99 ms")]
    for name, each in latencies(record).items():
        figures = (f"{each[key]:.1f}" for key in ("p50", "p95", "p99"))
        rows.append((_PROTOCOLS[name], str(each["requests"]), *figures))
    return table(rows, right=(1, 2, 3, 4))


def trouble(record: Record) -> str:
    lines = [f"\n  {count} x {what}" for what, count in record.lost.most_common(5)]
    return "\n  errors: " + (str(record.lost.total()) if lines else "none") + "".join(lines)


def added(found: Added) -> str:
    low, middle, high = found.added
    rows = [
        ("HTTP", f"{found.http:.1f} ms"),
        ("gRPC", f"{found.grpc:.1f} ms"),
        ("HTTP adds", f"{middle:+.1f} ms ({low:+.1f} to {high:+.1f})"),
    ]
    return f"one client at a time, the same tensor\n{table(rows)}"


def memory(found: Memory) -> str:
    first, middle, last = (each / 1e6 for each in sorted_thirds([every for _, every, _ in found.samples]))
    return f"  memory of all processes: {first:.0f}, {middle:.0f}, {last:.0f} MB, medians of the three thirds"


def faults(told: Told) -> str:
    rows = [(name, f"{count} times as it should be") for name, count in sorted(told.right.items())]
    wrong = "".join(f"\n  {count} x {what}" for what, count in told.wrong.most_common())
    return f"faults beside the load\n{table(rows)}{wrong or chr(10) + '  none was told anything else'}"


def killed(found: Killed) -> str:
    rows = [
        ("answered", str(len(found.record.answered))),
        ("asked once more", str(found.record.retried)),
        ("lost", str(found.record.lost.total())),
        ("a new replica after", f"{found.back:.1f} s"),
    ]
    return f"a replica killed\n{table(rows)}{trouble(found.record)}"


def stopped(found: Stopped) -> str:
    rows = [
        ("answered", f"{len(found.record.answered)}, {found.after} of them after the signal"),
        ("turned away", str(found.record.refused)),
        ("dropped", str(found.record.lost.total())),
        ("exit status", f"{found.status}, after {found.seconds:.1f} s"),
    ]
    return f"SIGTERM\n{table(rows)}{trouble(found.record)}"


def as_dict(found: Any) -> dict[str, Any]:
    """For --json: every figure, and of a record its latencies."""
    values = dict(vars(found))
    if (record := values.pop("record", None)) is not None:
        values |= {"latencies_ms": latencies(record), "lost": dict(record.lost)}
        values |= {"answered": len(record.answered), "retried": record.retried, "refused": record.refused}
    return values
