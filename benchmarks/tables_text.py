"""What `tables` measured, as the Markdown of benchmarks/README.md."""

from __future__ import annotations

from collections.abc import Iterable

from tome_export.benching.turns import Ratio
from tome_export.console import giga, size

RUNTIMES = {"onnx": "ONNX Runtime", "paddle": "Paddle Inference", "openvino": "OpenVINO"}
_WANTED = 0.95  # of what the multiply-adds promise


def as_markdown(found: dict[str, dict]) -> str:
    """found: by name, in the order of the tables."""
    speeds = {name: each for name, each in found.items() if not name.startswith("export:")}
    exports = {name: each for name, each in found.items() if name.startswith("export:")}
    parts = []
    for model in dict.fromkeys(name.partition(":")[0] for name in speeds):
        own = [each for name, each in speeds.items() if name.partition(":")[0] == model]
        parts += [f"### {_title(own[0])}", _speeds(own)]
    on_onnx = [each for name, each in speeds.items() if name.endswith(":onnx:fp32")]
    if on_onnx:
        parts += ["### What the multiply-adds promise, and what is measured", _promised(on_onnx)]
        parts += ["### Merging's share of the time", _merging(on_onnx)]
    if exports:
        parts += ["### Export", _exports(exports.values())]
    return "\n\n".join([*parts, "### Made with", _made(found)])


def _speeds(own: list[dict]) -> str:
    batches = list(own[0]["rounds"])
    head = ["", *(f"Batch {batch}" for batch in batches), "ms, r = 0 and r", "Memory, r = 0 and r"]
    rows = []
    for each in own:
        merged, plain = each["entries"][0], each["entries"][1]
        label = f"{RUNTIMES[merged['runtime']]} {merged['version']}, {merged['precision']}"
        if plain["precision"] != merged["precision"]:
            label += f" (r = 0: {plain['precision']})"
        times = [f"{_ms(each, batch, 1)} and {_ms(each, batch, 0)}" for batch in batches]
        memory = [_timed(each, batches[-1], entry)["memory"] for entry in (1, 0)]
        held = " and ".join(size(count) for count in memory) if all(memory) else ""
        rows.append([label, *(_ratio(each, batch) for batch in batches), "; ".join(times), held])
    return _table(head, rows)


def _promised(on_onnx: list[dict]) -> str:
    """At the largest batch."""
    rows = []
    for each in on_onnx:
        merged, plain = each["entries"]
        batch = max(each["rounds"], key=int)
        measured = _timed(each, batch, 0)["ratio"]["median"]
        share = measured / merged["fewer_macs"]
        rows.append(
            [
                _title(each),
                f"{giga(plain['macs'])} to {giga(merged['macs'])}",
                f"{merged['fewer_macs']:.2f}x",
                f"{measured:.2f}x (batch {batch})",
                f"{share:.2f}{'' if share >= _WANTED else f', below {_WANTED}'}",
            ]
        )
    return _table(["", "Multiply-adds", "Fewer", "Faster", "Share"], rows)


def _merging(on_onnx: list[dict]) -> str:
    batches = list(on_onnx[0]["rounds"])
    rows = []
    for each in on_onnx:
        shares = [_timed(each, batch, 0)["merging"] for batch in batches]
        rows.append([_title(each), *("" if share is None else f"{100 * share:.1f} %" for share in shares)])
    return _table(["ONNX Runtime, fp32", *(f"Batch {batch}" for batch in batches)], rows)


def _exports(exports: Iterable[dict]) -> str:
    rows = [[each["model"], f"{each['seconds']:.0f} s"] for each in exports]
    return _table(["Paddle and ONNX, with parity", "Time"], rows)


def _made(found: dict[str, dict]) -> str:
    rows = []
    for name, each in found.items():
        counts = each.get("rounds", {}).items()
        rounds = ", ".join(f"{count} at batch {batch}" for batch, count in counts)
        load = f"{each['load']['before'][0]:.1f} to {each['load']['after'][0]:.1f}"
        where = f"{each['where']}, {each['threads']} threads"
        versions = ", ".join(
            f"{key} {each['versions'][key]}" for key in ("tome_export", "paddle", "onnxruntime")
        )
        rows.append([f"`{name}`", each["finished"][:10], where, load, rounds, versions])
    return _table(["", "Date", "Machine", "Load", "Rounds", "Versions"], rows)


def _title(each: dict) -> str:
    return f"{each['model']} at {each['image_size']}, r = {each['r']}"


def _timed(each: dict, batch: str, entry: int) -> dict:
    return next(one for one in each["timed"] if one["batch"] == int(batch) and one["entry"] == entry)


def _ratio(each: dict, batch: str) -> str:
    return str(Ratio(**_timed(each, batch, 0)["ratio"]))


def _ms(each: dict, batch: str, entry: int) -> str:
    return f"{_timed(each, batch, entry)['median_ms']:.0f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
