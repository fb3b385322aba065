"""What share of the time merging itself takes, by ONNX Runtime's own profiler.

An operator counts as merging if the logits could be had without it, were no token merged: go back from the
logits, step from `block{b}.merged` straight to `block{b}.attended` and take `block{b}.size` for given; what
was not met is merging: normalising the metric, similarities, selection, labels, the matrix, the product with
it, sizes, and `sources` where that is an output. What reads the sizes, the logarithm of proportional
attention and its addition, counts too. The metric itself does not: it is a few more columns of the product
that makes queries, keys and values.

The graph that this is read off is the optimised one that ONNX Runtime really runs, whose nodes bear the names
in the profile.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from tome_export.bundle import Bundle

_RUNS = 10
_WARM = 3


def merging_share(
    bundle: Bundle, image: np.ndarray, threads: int | None, precision: str = "fp32"
) -> float | None:
    """Of the time in operators on the CPU, 0 to 1, at this batch, by ten runs. None if the optimised
    graph does not show where a block merges.

    image: float32 [n, 3, H, W]. Raises MissingExtraError, BundleError.
    """
    from tome_export.runtimes.onnx_runtime import start_session

    path = bundle.file(bundle.artifact("onnx", precision), ".onnx")
    with tempfile.TemporaryDirectory() as scratch:
        optimised = Path(scratch) / "optimised.onnx"

        def profiled(options):
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(scratch) / "profile")
            options.optimized_model_filepath = str(optimised)
            for key, value in {"file_name": "weights.bin", "min_size_in_bytes": "1024"}.items():
                options.add_session_config_entry(
                    f"session.optimized_model_external_initializers_{key}", value
                )

        session = start_session(path, path.parent, threads=threads, configure=profiled)
        for _ in range(_WARM + _RUNS):
            session.run(["logits"], {session.get_inputs()[0].name: image})
        profile = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        counted = merging_nodes(optimised, bundle)
    if counted is None:
        return None
    return _share(profile, counted)


def merging_nodes(model: Path, bundle: Bundle) -> set[str] | None:
    """Names of the nodes of an ONNX file that are there for merging. None if it does not show where a block
    merges. Reads no weights."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    maker = {name: node for node in graph.node for name in node.output}
    blocks = [block for block, r in enumerate(bundle.manifest.tome.r) if r]
    instead = {f"block{block}.merged": f"block{block}.attended" for block in blocks}
    sizes = {f"block{block}.size" for block in blocks}
    if not sizes.union(instead, instead.values()) <= maker.keys():
        return None
    of_sizes = _only_from(graph, sizes)
    own, todo = set(), ["logits"]
    while todo:
        name = todo.pop()
        name = instead.get(name, name)
        node = maker.get(name)
        if node is None or name in sizes or name in of_sizes or node.name in own:
            continue
        own.add(node.name)
        todo += node.input
    return {node.name for node in graph.node if node.name not in own or of_sizes.intersection(node.input)}


def _only_from(graph, sizes: set[str]) -> set[str]:
    """The sizes and what is computed of them and constants alone."""
    constant = {value.name for value in graph.initializer}
    found = set(sizes)
    for node in graph.node:
        named = [name for name in node.input if name]
        if found.intersection(named) and all(name in found or name in constant for name in named):
            found.update(node.output)
    return found


def _share(profile: list[dict], counted: set[str]) -> float:
    """Of the time, each node's own being its median over the runs: where a run is interrupted, one of its
    kernels takes many times as long. The n-th event of a node is of the n-th run."""
    taken = defaultdict(list)
    for event in profile:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    typical = {name: float(np.median(durations[_WARM:])) for name, durations in taken.items()}
    return sum(typical[name] for name in counted if name in typical) / sum(typical.values())
