"""Views of a bundle as text: what `tome-export` and `tome-export inspect` print."""

from __future__ import annotations

from pathlib import Path

from tome_export.bundle import Bundle
from tome_export.console import giga, size, table
from tome_export.manifest import Manifest, ParityResult


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


def parity(results: tuple[ParityResult, ...]) -> str:
    """Each runtime and output with the largest difference, and what is allowed."""
    rows = []
    for result in results:
        if result.merge_agreement is not None:
            figure = f"{result.merge_agreement:.2%} of tokens agree"
            allowed = "all"
        else:
            figure = f"{result.max_rel:.1e} of the range"
            allowed = f"at most {result.tolerance:.0e}"
        batches = ",".join(map(str, result.batch_sizes))
        verdict = "ok" if result.passed else "FAILED"
        rows.append((result.runtime, result.output, figure, allowed, f"batch {batches}", verdict))
    return table(rows)


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
