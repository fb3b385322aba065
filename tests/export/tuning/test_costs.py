"""The table of costs against a machine whose times are known because they are made up."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tome_export.errors import RequestError
from tome_export.tuning.costs import Point, Setting, fit_costs, probes, read_costs

SETTING = Setting("vit", 12, 197, 1, 768, 3072, "onnx", "1", "fp32", "cpu", 2, 1)
SMALL = replace(SETTING, depth=6, tokens=65, embed_dim=64, hidden_dim=128)


def gemm_machine(before, after, r, tokens):
    """Time grows with the tokens, and merging costs a twentieth of a block."""
    return 0.5 * before + 0.5 * after + 0.1 * before * before / tokens + (0.05 * tokens if r else 0)


def step_machine(before, after, r, tokens):
    """Below half of the tokens nothing gets faster, as on a device that is not filled; merging is dear."""
    return 0.4 * max(before, tokens / 2) + 0.6 * max(after, tokens / 2) + (0.12 * tokens if r else 0)


def time_of(machine, schedule, setting):
    whole = setting.depth * machine(setting.tokens, setting.tokens, 0, setting.tokens)
    parts = zip(schedule.tokens[:-1], schedule.tokens[1:], schedule.r, strict=True)
    return sum(machine(*part, setting.tokens) for part in parts) / whole


def fit(machine, setting, noise=0.0):
    rng = np.random.default_rng(0)
    points = [
        Point(
            each.r, time_of(machine, each, setting) * (1 + noise * rng.standard_normal()), max(noise, 0.005)
        )
        for each in probes(setting.frame)
    ]
    return fit_costs(setting, 80.0, points)


@pytest.mark.parametrize("setting", [SETTING, SMALL], ids=["vit-b", "small"])
@pytest.mark.parametrize("machine", [gemm_machine, step_machine])
@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.03), (0.01, 0.05)])
def test_schedules_that_were_not_timed_cost_what_they_cost(machine, setting, noise, allowed):
    costs = fit(machine, setting, noise)
    rng = np.random.default_rng(1)
    timed = {point.r for point in costs.points}
    for _ in range(50):
        share = rng.random(setting.depth) * rng.choice([0.5, 1, 2]) * setting.tokens / setting.depth
        schedule = setting.frame.schedule([int(each) for each in share * (rng.random(setting.depth) < 0.8)])
        if schedule.r not in timed:
            assert costs.cost(schedule) == pytest.approx(time_of(machine, schedule, setting), rel=allowed), (
                schedule
            )
    assert costs.error < allowed


def test_without_merging_nothing_is_gained_or_lost():
    costs = fit(gemm_machine, SETTING)
    assert costs.cost(SETTING.frame.schedule(0)) == pytest.approx(1)
    assert costs.block_ms(197) == pytest.approx(80 / 12)
    assert list(costs.blocks) == sorted(costs.blocks) and min(costs.merging) >= 0


@pytest.mark.parametrize("depth", [1, 2])
def test_shallow_models_have_a_table(depth):
    setting = replace(SMALL, depth=depth)
    costs = fit(gemm_machine, setting)
    assert 0 < costs.cost(setting.frame.schedule(20)) < 1.1


def test_costs_are_kept_and_refused_for_anything_else(tmp_path):
    costs = fit(gemm_machine, SETTING)
    file = tmp_path / "costs.json"
    file.write_text(costs.to_json())
    assert read_costs(file, SETTING) == costs
    with pytest.raises(RequestError, match="was measured with batch = 1, and now it is 8"):
        read_costs(file, replace(SETTING, batch=8))
    for wrong in ("{", "[]", json.dumps({"setting": {}}), "\udcff"):
        file.write_bytes(wrong.encode(errors="surrogateescape"))
        with pytest.raises(RequestError, match="^[^\n]*not a file of costs that tune wrote[^\n]*$"):
            read_costs(file, SETTING)
