"""Find the schedule that answers most like r = 0 at a required speed, or the fastest that agrees enough.

from tome_export.tune import tune

found = tune("vit_b16", "./photos", weights="vit_base_patch16_224.pdparams", speedup=2.0)
found.best.r                     # (24, 23, 21, ...), for `export(..., r=list(found.best.r))`

Its parts are in `tuning/`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tome_export.errors import MissingExtraError, RequestError
from tome_export.evaluation.interrupt import Interrupt
from tome_export.fetch import fetch
from tome_export.request import ExportRequest
from tome_export.runtimes import RUNTIMES, probe
from tome_export.runtimes.base import check_threads, parse_device
from tome_export.steps import Steps
from tome_export.tuning.costs import Costs, Setting, read_costs
from tome_export.tuning.goal import Goal
from tome_export.tuning.hunt import Hunt
from tome_export.tuning.measure import Place, Timer, frame_of
from tome_export.tuning.pictures import find_pictures, read_pictures
from tome_export.tuning.result import Tuning

LIMIT, MINUTES = 512, 10.0


def tune(
    model,
    images: str | Path,
    *,
    speedup: float | None = None,
    min_agreement: float | None = None,
    labels: str | None = None,
    runtime: str = "onnx",
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
    batch: int = 1,
    limit: int = LIMIT,
    minutes: float = MINUTES,
    seed: int = 0,
    costs: str | Path | Costs | None = None,
    check_speed: bool = True,
    steps: Steps | None = None,
    interrupt: Interrupt | None = None,
    **options,
) -> Tuning:
    """Search the r of every block on half of the pictures, and judge what was found on the other half.

    model, options: as of `tome_export.export`: weights, image_size, preprocess and so on. speedup, or
    min_agreement: the goal; the other one is made as good as it can be. labels: a list of `path label` lines,
    or "folders": then accuracy takes the place of agreement with r = 0. runtime, precision, device, threads,
    batch: where speed counts. limit: most pictures. minutes: most time of the search. seed: of the halves and
    of the order in which the search tries. costs: a file to read measured costs from, or, if there is none,
    to keep them in. check_speed: measure the three schedules at the end, all in turns. interrupt: ends the
    search when it is asked, with what there is.

    Raises RequestError and its kin, ConversionError, and what reading weights raises.
    """
    steps, interrupt = steps or Steps(), interrupt or Interrupt()
    goal = Goal(speedup, min_agreement)
    place = _checked(Place(runtime, precision, device, threads, batch))
    if not 0 < minutes < float("inf"):
        raise RequestError(f"the time for the search should be above 0 minutes, not {minutes:g}")
    request = ExportRequest(model, r=0, **options)
    with ExitStack() as stack:
        weights = request.weights and fetch(request.weights, request.weights_sha256, steps)
        files, classes = None, None
        if labels is None:  # a wrong folder, before a model is built
            files, classes = find_pictures(Path(images), None, 0, limit)
        with steps("model"):
            from tome_export.source import open_source

            source = stack.enter_context(open_source(request, weights))
        from tome_export.pipeline import draft_manifest

        draft = draft_manifest(request, source)
        if files is None:
            files, classes = find_pictures(Path(images), labels, draft.model.num_classes, limit)
        with steps("pictures"):
            pictures = read_pictures(files, classes, draft.preprocess)
        setting = _setting(source, place)
        timer = None
        known = costs if isinstance(costs, Costs) else None
        if costs is not None and known is None and Path(costs).exists():
            known = read_costs(Path(costs), setting)
        if known is None or check_speed:
            with steps("open"):
                timer = stack.enter_context(Timer(source.model, draft, place))
        if known is None:
            with steps("costs"):
                known = timer.measure(setting, steps)
            if costs is not None:
                Path(costs).write_text(known.to_json() + "\n", encoding="utf-8")
        hunt = Hunt(source.model, goal, known, pictures, seed, minutes, steps, interrupt)
        return hunt.run(draft.model.name, timer if check_speed else None)


def _checked(place: Place) -> Place:
    parse_device(place.device)
    check_threads(place.threads)
    if place.batch < 1:
        raise RequestError(f"a batch holds at least one image, not {place.batch}")
    engine_makes = RUNTIMES[place.runtime].makes if place.runtime in RUNTIMES else ()
    found = probe(place.runtime)
    if not found.usable:
        raise MissingExtraError(found.detail)
    if place.precision not in ("fp32", *engine_makes):
        can = ", ".join(("fp32", *engine_makes))
        raise RequestError(f"costs on {place.runtime} are measured in {can}, not {place.precision}")
    return place


def _setting(source, place: Place) -> Setting:
    config, frame = source.config, frame_of(source.model)
    return Setting(
        config.name,
        frame.depth,
        frame.tokens,
        frame.protected,
        config.embed_dim,
        config.hidden_dim,
        place.runtime,
        probe(place.runtime).version,
        place.precision,
        place.device,
        place.threads,
        place.batch,
    )
