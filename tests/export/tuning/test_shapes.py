"""Shapes become whole tokens that cost what was asked, and no more merging than that takes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tome_core.schedule import block_macs, make_schedule
from tome_export.tuning.shapes import Frame, constant, decreasing, fitted, scaled, starting_shapes

FRAME = Frame(12, 197, 1)


def macs(schedule):
    """Of ViT-B's blocks, over those of r = 0."""
    pairs = zip(schedule.tokens[:-1], schedule.tokens[1:], strict=True)
    return sum(block_macs(*pair, 768, 3072) for pair in pairs) / (12 * block_macs(197, 197, 768, 3072))


def test_whole_scales_are_the_schedules_of_the_export():
    assert scaled(constant(12), 13, FRAME) == make_schedule(13, 12, 197)
    ramp = scaled(decreasing(12), 2 * 8 / 11, FRAME)
    assert sum(ramp.r) == 8 * 12 and list(ramp.r) == sorted(ramp.r, reverse=True) and ramp.r[-1] == 0
    exported = make_schedule((8, -1.0), 12, 197).r
    assert all(abs(own - theirs) <= 1 for own, theirs in zip(ramp.r, exported, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.just(0.0) | st.floats(0.01, 4), min_size=12, max_size=12).filter(any),
    st.floats(0.4, 0.99),
)
def test_a_fitted_shape_meets_the_cost_and_keeps_its_zeros(shape, most):
    schedule = fitted(shape, FRAME, macs, most)
    if schedule is None:  # only where all that this shape can merge is too little
        least = min(each for each in shape if each > 0)
        assert macs(scaled(shape, 197 / least, FRAME)) > most
        return
    assert macs(schedule) <= most
    assert all(r == 0 for r, part in zip(schedule.r, shape, strict=True) if part == 0)


def test_no_more_is_merged_than_it_takes():
    for shape in starting_shapes(12):
        schedule = fitted(shape, FRAME, macs, 0.6)
        assert 0.59 < macs(schedule) <= 0.6, shape


@pytest.mark.parametrize("depth", [1, 2, 3, 24])
def test_models_of_any_depth_have_shapes(depth):
    frame = Frame(depth, 50, 1)
    for shape in starting_shapes(depth):
        assert len(shape) == depth and min(shape) >= 0
    assert fitted(constant(depth), frame, lambda schedule: schedule.tokens[-1] / 50, 0.6).tokens[-1] == 30
    assert fitted([0.0] * depth, frame, lambda schedule: 0.0, 1.0) is None
