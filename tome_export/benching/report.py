"""A benchmark on the terminal."""

from __future__ import annotations

from tome_export.benching.result import Benchmark, Entry
from tome_export.console import giga, size, table


def as_text(found: Benchmark) -> str:
    """A table for each batch size, then what belongs to all."""
    threads = "all threads" if found.threads is None else f"{found.threads} threads"
    parts = [f"{found.machine}, {found.device}, {threads}"]
    parts += [_batch(found, int(batch), rounds) for batch, rounds in found.rounds.items()]
    parts += [text for text in (_work(found), _merging(found)) if text]
    said = [f"{entry.name}: {note}" for entry in found.entries for note in entry.notes]
    if said or found.notes:
        parts.append("\n".join(f"note: {note}" for note in (*said, *found.notes)))
    return "\n\n".join(parts)


def _batch(found: Benchmark, batch: int, rounds: int) -> str:
    timed = [each for each in found.timed if each.batch == batch]
    remembered = any(each.memory for each in timed)
    rows = [("", "", "", "median", "95 %", "images/s", "speed", "", *(["memory"] if remembered else []))]
    for each in timed:
        entry = found.entries[each.entry]
        speed = against = ""
        if each.ratio is not None:
            speed, against = str(each.ratio), f"of {_short(found, entry)}"
        rows.append(
            (
                entry.model,
                f"{entry.runtime} {entry.version}",
                entry.precision,
                f"{each.median_ms:.1f} ms",
                f"{each.p95_ms:.1f} ms",
                f"{each.images_per_second:.1f}",
                speed,
                against,
                *([size(each.memory) if each.memory else ""] if remembered else []),
            )
        )
    runs = f"{rounds} rounds of {found.runs_a_round} runs"
    return f"batch {batch}, {runs}\n{table(rows, right=[3, 4, 5, 8])}"


def _short(found: Benchmark, entry: Entry) -> str:
    """What it is compared with, as briefly as it stays clear."""
    other = found.entries[entry.against]
    parts = [
        other.model if other.model != entry.model else "",
        other.runtime if other.runtime != entry.runtime else "",
        other.precision if other.precision != entry.precision else "",
    ]
    return " ".join(filter(None, parts))


def _work(found: Benchmark) -> str:
    rows = {}
    for entry in found.entries:
        fewer = found.fewer_macs(entry)
        if fewer is not None and found.entries[entry.against].path != entry.path:
            other = found.entries[entry.against]
            rows[entry.model] = (
                entry.model,
                f"{giga(other.macs)} -> {giga(entry.macs)}",
                f"{fewer:.2f}x fewer than {other.model}",
            )
    return f"multiply-adds\n{table(list(rows.values()))}" if rows else ""


def _merging(found: Benchmark) -> str:
    rows = [
        (
            f"{found.entries[each.entry].model} {found.entries[each.entry].precision}",
            f"batch {each.batch}",
            f"{100 * each.merging:.1f} %",
        )
        for each in found.timed
        if each.merging is not None
    ]
    head = "share of merging in the time of all operators, by ONNX Runtime's profiler"
    return f"{head}\n{table(rows, right=[2])}" if rows else ""
