"""Exported models compute what the Python model computes, on photographs: by a direct comparison, which owes
nothing to the product's own parity check."""

import numpy as np
import pytest

from tests.export import small
from tome_export.runtimes import open_runtime

TOLERANCE = 1e-4  # of the range of the logits
CLEAR = 1e-5  # similarity: ten times what two correct runtimes differ by
WAYS = {"onnx": ("onnx", {}), "onednn": ("paddle", {}), "plain": ("paddle", {"onednn": False})}
every_case = pytest.mark.parametrize("case", small.CASES, ids="-".join)


@pytest.fixture(scope="module")
def expected(small_bundles, details):
    """case -> (eight photographs as a batch, the Python model's outputs), none of them near a tie."""
    known = {}

    def of(case):
        if case not in known:
            model, schedule = case
            layer = small.build(model, small.SCHEDULES[schedule])
            images = small_bundles[case].manifest.preprocess.apply(details)
            outputs, margins = small.answers(layer, images)
            clear = np.flatnonzero(margins >= CLEAR)[:8]
            assert len(clear) == 8, f"only {len(clear)} photographs are away from ties"
            known[case] = images[clear], {name: value[clear] for name, value in outputs.items()}
        return known[case]

    return of


def agree(found, wanted, rows):
    assert small.relative(found["logits"], wanted["logits"][rows]) <= TOLERANCE
    assert found["sources"].dtype == np.int32
    np.testing.assert_array_equal(found["sources"], wanted["sources"][rows])


def raw_predictor(bundle):
    """Paddle Inference as its documentation's first example has it: every setting at its default."""
    from paddle import inference

    config = inference.Config(str(bundle.path / "inference.json"), str(bundle.path / "inference.pdiparams"))
    predictor = inference.create_predictor(config)

    def run(images):
        handle = predictor.get_input_handle(predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(images)
        predictor.run()
        outputs = [
            predictor.get_output_handle(name).copy_to_cpu().copy() for name in predictor.get_output_names()
        ]
        return dict(zip(("logits", "sources"), outputs, strict=True))

    return run


@every_case
def test_the_cases_merge_as_they_should(case, small_bundles, expected):
    """The photographs take different decisions, and enough blocks merge to show what one block hides."""
    _, wanted = expected(case)
    r = small_bundles[case].manifest.tome.r
    groups = wanted["sources"].max(axis=1) + 1
    assert (groups == small_bundles[case].manifest.tome.tokens[-1]).all()
    if case[1] != "r0":
        assert sum(count > 0 for count in r) >= 4
        assert len({row.tobytes() for row in wanted["sources"]}) == 8
    assert len({row.tobytes() for row in wanted["logits"]}) == 8


@every_case
@pytest.mark.parametrize("way", WAYS)
def test_photographs_at_batch_1_3_and_8_in_one_session(case, way, small_bundles, expected):
    images, wanted = expected(case)
    name, options = WAYS[way]
    with open_runtime(name, small_bundles[case], **options) as runtime:
        assert runtime.notes == ()  # oneDNN did run it
        for rows in (slice(0, 1), slice(0, 3), slice(0, 8), slice(5, 8), slice(3, 4), slice(0, 1)):
            agree(runtime.run(images[rows]), wanted, rows)


@every_case
def test_paddle_inference_with_nothing_set_but_the_files(case, small_bundles, expected):
    images, wanted = expected(case)
    run = raw_predictor(small_bundles[case])
    for rows in (slice(0, 3), slice(4, 5), slice(0, 8), slice(5, 8), slice(0, 3)):
        agree(run(images[rows]), wanted, rows)


@pytest.mark.parametrize("model", small.MODELS)
def test_merging_changes_the_answer(model, small_bundles, expected):
    """Else agreement between schedules, or with a graph that lost its merging, would look like success."""
    images, wanted = expected((model, "r0"))
    for schedule in ("r8", "r16", "r16-decreasing"):
        with open_runtime("onnx", small_bundles[model, schedule]) as runtime:
            assert small.relative(runtime.run(images)["logits"], wanted["logits"]) > 30 * TOLERANCE
