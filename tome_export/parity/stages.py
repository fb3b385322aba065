"""Each part of each block by itself: the reference works on what the runtime had before it, so that an
error is seen where it arises, undiluted, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tome_export.parity.decisions import Block, check_own, label_problem, mask_problem
from tome_export.parity.result import Finding, Limits

PARTS = {
    "norm1": "norm",
    "attended": "attention",
    "scores": "similarity",
    "label": "selection",
    "size": "size",
    "merged": "merge",
    "norm2": "norm",
    "tokens": "mlp",
}
"""The part of a block that makes each tensor of `tome_core.schedule.tap_names`, in order."""
_ALLOWED = -2.0


def where(name: str) -> tuple[int | None, str]:
    """ "block3.size" -> (3, "size"); "embed" -> (None, "embed")."""
    block, _, part = name.rpartition(".")
    return (int(block.removeprefix("block")) if block else None), part


def largest(own: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference over the largest value; infinite for what is not finite or of another shape."""
    if own.shape != theirs.shape or not (np.isfinite(own).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(own - theirs).max(initial=0.0) / max(float(np.abs(own).max(initial=0.0)), 1e-30))


def similarity_error(own: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of similarity among the pairs that both allow."""
    both = (own > _ALLOWED) & (theirs > _ALLOWED)
    if not (np.isfinite(own).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(own - theirs)[both].max(initial=0.0))


def gain(own: np.ndarray, theirs: np.ndarray) -> float:
    """By what fraction `theirs` is larger than `own` on the whole."""
    own, theirs = own.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    # Not a BLAS product, whose threads and the runtimes' would fight over the processors.
    return float((own * (theirs - own)).sum() / max((own * own).sum(), 1e-30))


def stage_errors(own: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Each tensor's error, for one input. own: the reference's, working on `theirs`, the runtime's."""
    errors = {}
    for name, value in theirs.items():
        part = where(name)[1]
        if name not in own or part in ("label", "sources"):
            continue
        error = similarity_error if part == "scores" else largest
        errors[name] = error(np.asarray(own[name], np.float32), np.asarray(value, np.float32))
    return errors


def find(
    own: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    blocks: Mapping[int, Block],
    limits: Limits,
    input: str,
) -> Iterator[Finding]:
    """What is wrong with one input's tensors, in the order of the graph. blocks: those that merge."""
    invalid = None  # the block whose labels cannot be applied, which spoils what is made of them
    errors = stage_errors(own, theirs)
    for name in sorted(theirs, key=outputs_last):
        block, part = where(name)
        if not np.isfinite(theirs[name]).all():
            if invalid is None:
                yield Finding(_part(part), block, input, "is not finite")
            return  # and neither is what follows from it
        if part == "label":
            if problem := _selection(theirs, block, blocks[block]):
                invalid = block
                yield Finding("selection", block, input, problem)
            continue
        if name not in errors or (block is not None and block == invalid and part in ("size", "merged")):
            continue
        if part == "scores" and (problem := mask_problem(theirs[name][0], blocks[block])):
            yield Finding("selection", block, input, problem)
        error = errors[name]
        if error > limits.stage:
            of = "" if part == "scores" else " of the largest value"
            what = f"differs by {error:.1e}{of}, {limits.stage:.1e} allowed, given the same input"
            yield Finding(_part(part), block, input, what)
        elif _part(part) == "norm" and abs(off := gain(own[name], theirs[name])) > limits.gain:
            what = f"is scaled by 1 {off:+.1e}, {limits.gain:.1e} allowed: is its epsilon the model's?"
            yield Finding("norm", block, input, what)


def _part(name: str) -> str:
    return PARTS.get(name, "head" if name == "logits" else name)


def outputs_last(name: str) -> bool:
    return name in ("logits", "sources")


def _selection(theirs: Mapping[str, np.ndarray], index: int, block: Block) -> str | None:
    label, scores = (theirs[f"block{index}.{part}"][0] for part in ("label", "scores"))
    if problem := label_problem(label, block):
        return problem
    faults = check_own(label, scores, block).faults
    return faults[0] if faults else None
