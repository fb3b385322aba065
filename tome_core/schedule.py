"""How many tokens each block merges, and what that leaves and costs. Plain Python, exact integers.

Everything an exported graph needs to know about shapes is decided here, before tracing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from tome_core.errors import ScheduleError

RSpec = int | Sequence[int] | tuple[int, float]


@dataclass(frozen=True)
class Schedule:
    """What a model does with its tokens, block by block.

    r: tokens merged away in each block, already limited to what is possible there.
    tokens: tokens entering block 0, then leaving each block; `len(r) + 1` numbers.
    protected: special tokens (class, distillation) that are never merged away.
    """

    r: tuple[int, ...]
    tokens: tuple[int, ...]
    protected: int


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one image: per block, and of the whole model with patch embedding and head."""

    blocks: tuple[int, ...]
    total: int


def parse_r(r: RSpec, depth: int) -> tuple[int, ...]:
    """Expand `r` to one non-negative int per block.

    `16` merges 16 tokens in every block. A list gives r per block and is padded with 0.
    A 2-tuple `(r, inflection)` changes linearly over the blocks with mean `r`: from
    `r * (1 - inflection)` to `r * (1 + inflection)`, so -1 starts at `2 r` and ends at 0
    (paper, section 4.1).

    Raises ScheduleError for negative or non-integer entries, a list longer than `depth`, an inflection
    outside [-1, 1].
    """
    if depth < 1:
        raise ScheduleError(f"a model needs at least one block, not {depth}")
    if isinstance(r, tuple) and len(r) == 2:
        return _linear(*r, depth)
    if isinstance(r, Sequence) and not isinstance(r, str | bytes):
        if len(r) > depth:
            raise ScheduleError(f"r has {len(r)} entries but the model has {depth} blocks")
        return tuple(_count(value) for value in r) + (0,) * (depth - len(r))
    return (_count(r),) * depth


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ScheduleError(f"r must be a whole number, not {value!r}")
    if value < 0:
        raise ScheduleError(f"r must not be negative, got {value}")
    return int(value)


def _linear(r: object, inflection: object, depth: int) -> tuple[int, ...]:
    r = _count(r)
    if isinstance(inflection, bool) or not isinstance(inflection, Real) or not -1 <= inflection <= 1:
        raise ScheduleError(f"the inflection must be a number from -1 to 1, not {inflection!r}")
    if depth == 1:
        return (r,)
    first = int(r * (1 - inflection))
    step = (2 * r - 2 * first) / (depth - 1)
    return tuple(int(first + step * block) for block in range(depth))


def make_schedule(r: RSpec, depth: int, tokens: int, protected: int = 1) -> Schedule:
    """The schedule of a model with `depth` blocks and `tokens` input tokens.

    Each block merges at most half of its unprotected tokens: `min(r, (tokens - protected) // 2)`.
    Raises ScheduleError as `parse_r` does.
    """
    if tokens < 1 or protected < 0 or protected > tokens:
        raise ScheduleError(f"{protected} protected of {tokens} tokens is not possible")
    effective, counts = [], [tokens]
    for wanted in parse_r(r, depth):
        effective.append(min(wanted, (counts[-1] - protected) // 2))
        counts.append(counts[-1] - effective[-1])
    return Schedule(tuple(effective), tuple(counts), protected)


def block_macs(tokens_in: int, tokens_out: int, embed_dim: int, hidden_dim: int) -> int:
    """Multiply-adds of one block: attention on the tokens that enter, MLP on those left after merging.

    Counts the matrix products of the network itself; merging adds about 2 % (docs/merging.md).
    """
    projections = 4 * tokens_in * embed_dim * embed_dim
    attention = 2 * tokens_in * tokens_in * embed_dim
    mlp = 2 * tokens_out * embed_dim * hidden_dim
    return projections + attention + mlp


def model_macs(
    schedule: Schedule, embed_dim: int, hidden_dim: int, patch_size: int, patches: int, head_outputs: int
) -> Macs:
    """Multiply-adds of one image through the whole model under `schedule`.

    head_outputs: classes, times two for a distilled model with its two heads.
    """
    blocks = tuple(
        block_macs(before, after, embed_dim, hidden_dim)
        for before, after in zip(schedule.tokens[:-1], schedule.tokens[1:], strict=True)
    )
    patch_embedding = patches * embed_dim * 3 * patch_size * patch_size
    return Macs(blocks, sum(blocks) + patch_embedding + embed_dim * head_outputs)


def tap_names(r: Sequence[int]) -> tuple[str, ...]:
    """Names of the tensors that a patched model lets others see or replace (`ToMeState.tap`), in order.

    r: tokens merged in each block, as applied. `embed`: the tokens entering block 0. Then of each block
    `norm1`: what attention reads; `attended`: tokens after attention; if the block merges, `scores` and
    `label` (see `tome_core.matching`), `size` and `merged`: sizes and tokens after merging; `norm2`: what
    the MLP reads; `tokens`: what leaves the block.
    """
    merging = ("scores", "label", "size", "merged")
    parts = (("norm1", "attended", *(merging if merged else ()), "norm2", "tokens") for merged in r)
    return "embed", *(f"block{block}.{part}" for block, names in enumerate(parts) for part in names)
