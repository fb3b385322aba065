"""Speed against r: one bundle's weights exported at several schedules, which take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tome_core.errors import ScheduleError
from tome_core.schedule import RSpec
from tome_export.bench import MOST_ROUNDS, ROUNDS, MakeTwin, check, measure
from tome_export.benching.contenders import Model, line_up, model_of
from tome_export.benching.result import Benchmark
from tome_export.bundle import Bundle
from tome_export.errors import RequestError
from tome_export.steps import Steps


def bench_sweep(
    folder: Path,
    sweep: str,
    *,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str],
    batches: Sequence[int],
    device: str,
    threads: int | None,
    rounds: int | None,
    seconds: float | None,
    memory: bool,
    steps: Steps,
    make_twin: MakeTwin,
) -> Benchmark:
    """As `bench`, with the bundle's weights at each r of the sweep in place of the bundle.

    sweep: see `parse`; each is compared with the first. runtimes: one; None for the first there is.
    """
    check(batches, device, threads, rounds, seconds)
    asked = parse(sweep)
    model = model_of(Bundle.open(folder))
    first, notes = line_up(model, None, runtimes, precisions, device)
    if len(precisions) > 1 or (runtimes is not None and len(runtimes) > 1):
        raise RequestError("a sweep takes one runtime and one precision")
    contenders = [
        replace(first[0], model=Model(f"r={text}", make_twin(model.bundle, r, steps)), against=0)
        for text, r in asked.items()
    ]
    contenders[0] = replace(contenders[0], against=None)
    most = rounds or (ROUNDS if seconds is None else MOST_ROUNDS)
    return measure(model, contenders, (), batches, device, threads, most, seconds, memory, steps)


def parse(sweep: str) -> dict[str, RSpec]:
    """ "0,8,16:-1", or "r=0,8,16:-1" -> {"0": 0, "8": 8, "16:-1": (16, -1.0)}. Raises ScheduleError."""
    found: dict[str, RSpec] = {}
    for text in sweep.removeprefix("r=").split(","):
        r, colon, inflect = text.strip().partition(":")
        try:
            found[text.strip()] = (int(r), float(inflect)) if colon else int(r)
        except ValueError:
            raise ScheduleError(
                f"--sweep: {text!r} is not a whole number or R:INFLECT such as 16:-1"
            ) from None
    if len(found) < 2:
        raise ScheduleError("--sweep takes several values of r, such as 0,4,8,16,16:-1")
    return found
