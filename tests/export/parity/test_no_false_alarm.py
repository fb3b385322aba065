"""A right export is never called wrong: models, weights, schedules and inputs of all kinds, seeded.

The slow form is the full sweep: 50 bundles of 5 inputs each, so 250 combinations per runtime.
"""

import numpy as np
import pytest

from tests.export import small
from tome_export.parity.verify import Verification

SWEEP = range(50)


def draw(seed):
    """A model, a schedule and their options."""
    rng = np.random.default_rng(seed)
    model = list(small.MODELS)[seed % len(small.MODELS)]
    kind = seed // len(small.MODELS) % 3
    if kind == 0:
        r = int(rng.integers(1, 25))
    elif kind == 1:
        r = (int(rng.integers(2, 13)), float(rng.choice([-1.0, -0.5, 0.5, 1.0])))
    else:
        r = rng.integers(0, 20, small.DEPTH).tolist()
    outputs = [("logits",), ("logits", "sources")][seed % 2]
    return model, {"r": r, "seed": seed, "outputs": outputs, "prop_attn": bool(rng.random() < 0.7)}


def judged(seed, samples, out, monkeypatch):
    model, asked = draw(seed)
    said = []
    monkeypatch.setattr("tome_export.pipeline._SAMPLES", samples)
    monkeypatch.setattr(Verification, "require", lambda self: said.append(self))
    small.export_small(model, out, **asked)
    (found,) = said
    return found


def check(found):
    for result in found.results:
        assert result.passed and result.findings == (), (result.runtime, result.findings)
        assert result.forced.max_rel < result.limits.logits / 3
        for block in result.blocks:
            assert max(block.errors.values()) < result.limits.stage
            assert block.noise is None or block.noise < result.limits.similarity / 2


@pytest.mark.parametrize("seed", [101, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (106, 111))])
def test_no_false_alarm(seed, tmp_path, monkeypatch):
    check(judged(seed, 10, tmp_path / "out", monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SWEEP)
def test_no_false_alarm_in_the_sweep(seed, tmp_path, monkeypatch):
    check(judged(seed, 5, tmp_path / "out", monkeypatch))


@pytest.mark.parametrize("model", ["small_vit", pytest.param("small_mae", marks=pytest.mark.slow)])
@pytest.mark.parametrize("schedule", ["r16-decreasing", pytest.param("r8", marks=pytest.mark.slow)])
def test_bundles_of_the_pipeline_pass_on_hundreds_of_inputs(model, schedule, small_bundles):
    """Without the Python model, so that it is quick: ONNX Runtime and Paddle hold each other to account."""
    from tome_export.parity.verify import verify_bundle
    from tome_export.quiet import quiet

    with quiet():
        found = verify_bundle(
            small_bundles[model, schedule].path, against="onnx", samples=60, batch_sizes=(1, 8)
        )
    check(found)
    assert found.results[0].decisions > 3000
