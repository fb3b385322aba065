"""Will this model run there? Checks graphs against tables of what runtimes support, without the runtimes.

    from tome_export.lint import lint_bundle
    report = lint_bundle(Bundle.open("./infer"), ["tensorrt-10"])

The tables are data, with a source for every row; docs/portability.md says how they were made and how to
extend them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tome_export.errors import BundleError
from tome_export.lint.findings import RED, YELLOW, Finding, Group, Report, Verdict, group, has_red
from tome_export.lint.float16 import check_float16
from tome_export.lint.graph import Graph
from tome_export.lint.model_checks import check_dynamic, check_functions, check_integers, check_opset
from tome_export.lint.operators import check_conditions, check_rows
from tome_export.lint.table import TARGETS, Target, choose, load

if TYPE_CHECKING:
    import onnx

    from tome_export.bundle import Bundle

__all__ = [
    "RED", "TARGETS", "YELLOW", "Finding", "Group", "Report", "Verdict", "choose", "group", "has_red",
    "lint_bundle", "lint_graph", "lint_onnx", "lint_paddle",
]  # fmt: skip


def lint_bundle(bundle: Bundle, targets: Sequence[str] | None = None) -> Report:
    """Check an exported bundle; targets: names from `TARGETS`, None for all that its files are for.

    Every artifact of the format that a target reads is checked, in every precision. Raises RequestError
    for an unknown target, BundleError for a target whose format is not in the bundle and for damaged files,
    MissingExtraError without the onnx package.
    """
    graphs: dict[str, list[Graph]] = {}
    verdicts, findings = [], []
    there = {artifact.format for artifact in bundle.manifest.artifacts}
    for name in choose(targets):
        target = load(name)
        if target.graph not in there:
            if targets:
                raise BundleError(
                    f"{bundle.path}: {name} reads {target.graph}, which this bundle does not hold"
                )
            continue
        if target.graph not in graphs:
            graphs[target.graph] = list(_read(bundle, target.graph))
        reports = [lint_graph(graph, [name]) for graph in graphs[target.graph]]
        findings += [finding for report in reports for finding in report.findings]
        found = [report.verdicts[0] for report in reports]
        totals = (sum(getattr(each, what) for each in found) for what in ("operators", "red", "yellow"))
        verdicts.append(Verdict(name, target.title, *totals, note=target.note))
    return Report(tuple(verdicts), tuple(findings))


def lint_onnx(model: onnx.ModelProto | str | Path, targets: Sequence[str] | None = None) -> Report:
    """Check an ONNX model, in memory or in a file, for the targets that read ONNX."""
    from tome_export.lint import onnx_reader

    if isinstance(model, (str, Path)):
        graph = onnx_reader.read_file(Path(model))
    else:
        graph = onnx_reader.read_model(model)
    return lint_graph(graph, targets or [name for name in TARGETS if load(name).graph == "onnx"])


def lint_paddle(path: str | Path, targets: Sequence[str] | None = None) -> Report:
    """Check a Paddle program (`inference.json`) for the targets that read it."""
    from tome_export.lint import paddle_reader

    graph = paddle_reader.read_file(Path(path))
    return lint_graph(graph, targets or [name for name in TARGETS if load(name).graph == "paddle"])


def lint_graph(graph: Graph, targets: Sequence[str]) -> Report:
    """Check a graph that has been read, for targets that read its kind."""
    verdicts, findings = [], []
    for name in choose(targets):
        target = load(name)
        found = list(_check(graph, target))
        red = sum(each.severity == RED for each in found)
        verdicts.append(Verdict(name, target.title, len(graph.nodes), red, len(found) - red, target.note))
        findings += found
    return Report(tuple(verdicts), tuple(findings))


def _check(graph: Graph, target: Target) -> Iterator[Finding]:
    if graph.problem:
        advice = "export again with the weights in a file of their own"
        yield Finding(
            target.name, RED, "", "model", graph.problem, advice, "protocol buffers: 2 GiB a message"
        )
        return
    if graph.kind == "onnx":
        yield from check_opset(graph, target)
        yield from check_functions(graph, target)
    yield from check_rows(graph, target)
    yield from check_conditions(graph, target)
    yield from check_dynamic(graph, target)
    yield from check_integers(graph, target)
    yield from check_float16(graph, target)


def _read(bundle: Bundle, kind: str) -> Iterator[Graph]:
    from tome_export.lint import onnx_reader, paddle_reader

    for artifact in bundle.manifest.artifacts:
        if artifact.format == kind == "onnx":
            yield onnx_reader.read_file(bundle.file(artifact, ".onnx"))
        elif artifact.format == kind:
            yield paddle_reader.read_file(bundle.file(artifact, ".json"))
