"""What a parity check found, as data: it is stored in the manifest, printed, and drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is allowed; `tome_export.parity.limits` says how each number comes about.

    stage: difference of one part of a block, over its largest value. gain: systematic scale error of a
    LayerNorm. similarity: difference of the similarities that decide merging, absolute. logits: difference
    over the range of the reference's. near_ties: share of the decisions, on photographs and noise, that may
    go the other way because of it.
    """

    stage: float
    gain: float
    similarity: float
    logits: float
    near_ties: float


@dataclass(frozen=True)
class Figures:
    """How far some logits are from the reference's.

    max_abs, mean_abs: absolute. max_rel: max_abs over the range of the reference's logits. cosine_min: of
    the worst input. psnr: decibels, range over root mean square difference; None if there is no difference.
    top1_agreement, top5_agreement: share of inputs with the same best class, and the mean overlap of the
    five best.
    """

    max_abs: float
    mean_abs: float
    max_rel: float
    cosine_min: float
    psnr: float | None
    top1_agreement: float
    top5_agreement: float


@dataclass(frozen=True)
class BlockResult:
    """One block over all inputs.

    decisions: one for each token that might merge. agreed: of these, the reference decides the same.
    near_ties: it does not, by less than the numerical noise. faults: by more, or against the runtime's own
    similarities. noise: largest difference of similarity, None where nothing merges. errors: each part's
    largest difference over its largest value, given the same input.
    """

    block: int
    tokens: int
    r: int
    decisions: int
    agreed: int
    near_ties: int
    faults: int
    noise: float | None
    errors: dict[str, float]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    part: where it arises, such as "attention". block: None outside the blocks. input: the first to show it.
    what: in words.
    """

    part: str
    block: int | None
    input: str | None
    what: str


@dataclass(frozen=True)
class ParityResult:
    """How closely one runtime agrees with `against` ("dygraph", or another runtime).

    The figures at this level compare logits as they come; `forced`, after the reference was made to merge the
    tokens that this runtime merged, or this runtime those of the reference; None where the runtime's artifact
    shows no decisions. merge_agreement: share of decisions that are the same. tolerance: on max_rel.
    """

    runtime: str
    precision: str
    against: str
    inputs: int
    batch_sizes: tuple[int, ...]
    max_abs: float
    mean_abs: float
    max_rel: float
    cosine_min: float
    psnr: float | None
    top1_agreement: float
    top5_agreement: float
    forced: Figures | None
    merge_agreement: float | None
    decisions: int
    near_ties: int
    blocks: tuple[BlockResult, ...]
    findings: tuple[Finding, ...]
    limits: Limits
    tolerance: float
    passed: bool
