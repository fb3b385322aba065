"""Views of a bundle as text: what `tome-export` and `tome-export inspect` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tome_export.bundle import Bundle
from tome_export.console import giga, size, table
from tome_export.manifest import Manifest
from tome_export.parity.result import Finding, ParityResult
from tome_export.precision.result import PrecisionResult


def headline(manifest: Manifest) -> str:
    """One line: model, schedule, multiply-adds."""
    model, tome = manifest.model, manifest.tome
    macs = tome.macs
    return (
        f"{model.name} at {model.image_size} px, {tome.tokens[0]} -> {tome.tokens[-1]} tokens, "
        f"{giga(macs.base)} -> {giga(macs.tome)} multiply-adds ({macs.base / macs.tome:.2f}x fewer)"
    )


def weights(manifest: Manifest) -> str:
    """One line: where the weights came from."""
    origin = manifest.weights
    if origin.seed is not None:
        return f"random, seed {origin.seed}: for speed tests only"
    if origin.sha256 is None:
        return origin.source
    return f"{origin.source} ({origin.layout} layout), sha256 {origin.sha256[:12]}"


def files(bundle: Bundle) -> str:
    """The folder's files and their sizes."""
    sizes = bundle.file_sizes()
    sizes["manifest.json"] = (bundle.path / "manifest.json").stat().st_size
    return table([(name, size(count)) for name, count in sizes.items()], right=[1])


def parity(results: Sequence[ParityResult]) -> str:
    """A row per runtime: decisions, logits as they come and after the same merges, what is allowed."""
    if not results:
        return "  nothing was compared"
    first = results[0]
    rows: list[tuple[object, ...]] = [
        ("runtime", "precision", "merges that agree", "near ties", "logits", "same merges", "allowed", "")
    ]
    for result in results:
        agreed = sum(block.agreed for block in result.blocks)
        forced = "" if result.forced is None else f"{result.forced.max_rel:.1e}"
        merges = f"{agreed:,} of {result.decisions:,}" if result.decisions else "none"
        rows.append(
            (result.runtime, result.precision, merges, result.near_ties, f"{result.max_rel:.1e}")
            + (forced, f"{result.tolerance:.1e}", "ok" if result.passed else "FAILED")
        )
    batches = ",".join(map(str, first.batch_sizes))
    head = (
        f"agreement with {first.against} on {first.inputs} inputs, batch {batches}; logits over their range"
    )
    return f"{head}\n{table(rows, right=range(2, 7))}"


def precisions(results: Sequence[PrecisionResult]) -> str:
    """Of each model below fp32: how it was made, and a row of how well it predicts what fp32 does."""
    said = []
    rows: list[tuple[object, ...]] = [("", "top-1 agrees", "top-5", "logits, mean", "largest", "floor", "")]
    for result in results:
        of = result.source if result.source == "pictures" else "synthetic samples"
        said.append(f"{result.name}: {_made(result)}; compared with {result.against} on {result.inputs} {of}")
        figures, span = result.figures, result.figures.max_abs / max(result.figures.max_rel, 1e-30)
        held = result.min_agreement is not None
        rows.append(
            (result.name, f"{figures.top1_agreement:.2%}")
            + (f"{figures.top5_agreement:.2%}", f"{figures.mean_abs / max(span, 1e-30):.1e}")
            + (f"{figures.max_rel:.1e}", f"{result.min_agreement:.2%}" if held else "none: random weights")
            + ("ok" if result.passed else "FAILED",)
        )
    return "\n".join([*said, table(rows, right=range(1, 6))])


def _made(result: PrecisionResult) -> str:
    if result.method == "engine":
        return "made by the engine of the float32 model"
    ranges = {
        "dynamic": "dynamic (ranges found in every run), ",
        "static": f"static (on {result.calibrated} pictures), ",
    }
    kept = f", blocks {','.join(map(str, result.kept))} in float" if result.kept else ""
    return f"{ranges.get(result.method, '')}{result.layers} layers{kept}"


def findings(results: Sequence[ParityResult], of_bundle: Sequence[Finding] = ()) -> str:
    """What is wrong, one line each, in the order of the graph; empty if nothing is."""
    rows = [("bundle", finding) for finding in of_bundle]
    rows += [
        (f"{result.runtime} {result.precision}", finding) for result in results for finding in result.findings
    ]
    return table([(who, _place(finding), _said(finding)) for who, finding in rows]) if rows else ""


def _place(finding: Finding) -> str:
    return finding.part if finding.block is None else f"block {finding.block}, {finding.part}"


def _said(finding: Finding) -> str:
    return finding.what + (f" (on {finding.input})" if finding.input else "")


def schedule(manifest: Manifest) -> str:
    """A row per block: tokens in, r, tokens out, multiply-adds."""
    tome = manifest.tome
    rows: list[tuple[object, ...]] = [("block", "tokens", "r", "left", "multiply-adds", "of r = 0")]
    for block, r in enumerate(tome.r):
        before, after = tome.macs.base_blocks[block], tome.macs.tome_blocks[block]
        rows.append(
            (block, tome.tokens[block], r, tome.tokens[block + 1], giga(after), f"{after / before:.0%}")
        )
    return table(rows, right=range(6))


def shown_path(path: str | Path) -> str:
    """A path as one would type it."""
    text = str(path)
    return f"'{text}'" if " " in text else text
