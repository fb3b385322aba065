"""What a schedule costs: a table of measured time per block by number of tokens, and what merging adds.

Whole exported models are timed, each against the unmerged one in turns, so that caches, threads and
everything around the blocks count as they do in production. A block is cheaper with fewer tokens: attention
works on those that enter, the MLP on those left after merging. The time of a block at a few numbers of
tokens, and what merging adds to one, are the unknowns; each timed model is an equation, and least squares
solves them, held near the multiply-adds where the equations say little.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tome_core.schedule import Schedule, block_macs
from tome_export.errors import BundleError, RequestError
from tome_export.strict_json import read
from tome_export.tuning.shapes import Frame, constant, decreasing, fitted

_LEVELS = (1.0, 0.75, 0.5, 0.3, 0.15, 0.05)
"""Shares of the tokens at which a block's time is an unknown."""
_DOUBT = 0.4  # of an unmerged block's time, by which one may differ from what its multiply-adds say
_MERGING, _MERGING_DOUBT = 0.05, 0.2  # likewise, what merging may add to a block, and its deviation
_NOISE = 0.005  # of a measured ratio, at least


@dataclass(frozen=True)
class Setting:
    """What was timed where. tokens: entering block 0. batch: images at a time."""

    model: str
    depth: int
    tokens: int
    protected: int
    embed_dim: int
    hidden_dim: int
    runtime: str
    version: str
    precision: str
    device: str
    threads: int | None
    batch: int

    @property
    def frame(self) -> Frame:
        return Frame(self.depth, self.tokens, self.protected)


@dataclass(frozen=True)
class Point:
    """A timed schedule: time over that of r = 0, and its standard error."""

    r: tuple[int, ...]
    time: float
    doubt: float


@dataclass(frozen=True)
class Costs:
    """Time of an image by schedule; the whole model at r = 0 is 1.

    milliseconds: of r = 0, a batch, undisturbed. levels: tokens, rising; blocks: time of a block that merges
    nothing at so many, once some are merged; between the levels it is linear. merging: what merging adds to a
    block, at all tokens and in proportion to them. error: largest part by which the table and a timed
    schedule differ.
    """

    setting: Setting
    milliseconds: float
    levels: tuple[int, ...]
    blocks: tuple[float, ...]
    merging: tuple[float, float]
    points: tuple[Point, ...]
    error: float

    @cached_property
    def _rows(self) -> _Rows:
        return _Rows(self.setting, self.levels)

    def cost(self, schedule: Schedule) -> float:
        """Time over that of r = 0."""
        known, row = self._rows.of(schedule)
        return float(known + row @ np.array([*self.blocks, *self.merging]))

    def speedup(self, schedule: Schedule) -> float:
        return 1 / self.cost(schedule)

    def block_ms(self, tokens: int) -> float:
        """Milliseconds a batch of a block that merges nothing."""
        share = 1 / self.setting.depth if tokens == self.setting.tokens else None
        return self.milliseconds * (np.interp(tokens, self.levels, self.blocks) if share is None else share)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


class _Rows:
    """A schedule's cost as a sum: a known part, and how often it has each unknown (`levels`, then merging's
    two)."""

    def __init__(self, setting: Setting, levels: Sequence[int]) -> None:
        self._setting = setting
        hats = np.eye(len(levels))
        counts = np.arange(setting.tokens + 1)
        self._hats = np.stack([np.interp(counts, levels, hat) for hat in hats], axis=1)
        width, hidden = setting.embed_dim, setting.hidden_dim
        attention = 4 * width + 2.0 * counts
        self._attention = attention / (attention + 2 * hidden)

    def of(self, schedule: Schedule) -> tuple[float, np.ndarray]:
        whole, known = self._setting.tokens, 0.0
        row = np.zeros(self._hats.shape[1] + 2)
        for before, after, r in zip(schedule.tokens[:-1], schedule.tokens[1:], schedule.r, strict=True):
            for tokens, share in ((before, self._attention[before]), (after, 1 - self._attention[after])):
                if (
                    tokens == whole
                ):  # nothing merged yet, so nothing is added to attention: the unmerged block
                    known += share / self._setting.depth
                else:
                    row[:-2] += share * self._hats[tokens]
            if r:
                row[-2] += 1
                row[-1] += before / whole
        return known, row


def probes(frame: Frame) -> list[Schedule]:
    """The schedules to time: most blocks at one level each, and merging throughout."""
    found = [frame.schedule(_down_to(level, frame)) for level in levels_of(frame)]
    macs = lambda schedule: sum(schedule.tokens[1:]) / (frame.depth * frame.tokens)  # noqa: E731
    for shape, share in ((constant, 0.8), (constant, 0.55), (decreasing, 0.55)):
        schedule = fitted(shape(frame.depth), frame, macs, share)
        if schedule is not None:
            found.append(schedule)
    return list(dict.fromkeys(each for each in found if any(each.r)))


def levels_of(frame: Frame) -> tuple[int, ...]:
    """Numbers of tokens, rising; the last is one less than all."""
    loose = frame.tokens - frame.protected
    counts = {min(frame.protected + max(1, round(share * loose)), frame.tokens - 1) for share in _LEVELS}
    return tuple(sorted(counts))


def _down_to(tokens: int, frame: Frame) -> list[int]:
    """r that comes down to so many tokens in the first blocks, or as far as they can."""
    r, left = [], frame.tokens
    while left > tokens and len(r) < frame.depth:
        r.append(min(left - tokens, (left - frame.protected) // 2))
        left -= r[-1]
    return r


def fit_costs(setting: Setting, milliseconds: float, points: Sequence[Point]) -> Costs:
    """The table that fits the timed schedules best."""
    frame = setting.frame
    levels = levels_of(frame)
    rows = _Rows(setting, levels)
    per_block = lambda tokens: block_macs(tokens, tokens, setting.embed_dim, setting.hidden_dim)  # noqa: E731
    whole = 1 / setting.depth
    prior = [whole * per_block(level) / per_block(setting.tokens) for level in levels]
    doubt = [_DOUBT * whole] * len(prior)
    prior += [_MERGING * whole / 2] * 2
    doubt += [_MERGING_DOUBT * whole] * 2
    matrix, values = [], []
    for point in points:
        known, row = rows.of(frame.schedule(point.r))
        noise = max(point.doubt, _NOISE * point.time)
        matrix.append(row / noise)
        values.append((point.time - known) / noise)
    # More tokens never cost less: the unknowns are steps from level to level, none below zero.
    steps = np.eye(len(prior))
    steps[:-2, :-2] = np.tril(np.ones((len(levels), len(levels))))
    matrix = np.concatenate([np.array(matrix).reshape(-1, len(prior)), np.diag(1 / np.array(doubt))]) @ steps
    values = np.concatenate([np.array(values), np.array(prior) / doubt])
    solution = steps @ _least_squares(matrix, values)
    found = Costs(
        setting,
        milliseconds,
        levels,
        tuple(map(float, solution[:-2])),
        (float(solution[-2]), float(solution[-1])),
        tuple(points),
        0.0,
    )
    errors = [abs(found.cost(frame.schedule(point.r)) / point.time - 1) for point in points]
    return replace(found, error=max(errors, default=0.0))


def _least_squares(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """With nothing below zero: what comes out below is zero, and the rest is solved again."""
    free = np.ones(matrix.shape[1], bool)
    while True:
        solution = np.zeros(len(free))
        solution[free] = np.linalg.lstsq(matrix[:, free], values, rcond=None)[0]
        if (solution >= 0).all():
            return solution
        free &= solution > 0


def read_costs(file: Path, setting: Setting) -> Costs:
    """Costs written before. Raises RequestError: they are no such file, or of something else."""
    try:
        found = read(Costs, json.loads(file.read_text(encoding="utf-8")), "")
    except (OSError, ValueError, BundleError) as error:
        raise RequestError(f"{file}: not a file of costs that tune wrote ({_line(error)})") from None
    for name, wanted in asdict(setting).items():
        if (has := getattr(found.setting, name)) != wanted:
            raise RequestError(f"{file}: was measured with {name} = {has}, and now it is {wanted}")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).removeprefix("manifest.json: ")[:160]
