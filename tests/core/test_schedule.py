"""Schedules against counts from the paper's settings, the reference, and their own invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import reference
from tome_core.errors import ScheduleError
from tome_core.schedule import block_macs, make_schedule, model_macs, parse_r

VIT_B_TOKENS, VIT_L_384_TOKENS = 14 * 14 + 1, 24 * 24 + 1


# ---------------------------------------------------------------- known counts


def test_decreasing_schedule_of_eight():
    assert list(parse_r((8, -1), 12)) == [16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0]


@pytest.mark.parametrize(
    ("r", "tokens"),
    [
        (16, [197, 181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11]),
        ((16, -1), [197, 165, 136, 110, 87, 67, 50, 36, 25, 17, 12, 10, 10]),
        (0, [197] * 13),
        ([], [197] * 13),
    ],
)
def test_token_counts_of_vit_b_16(r, tokens):
    assert list(make_schedule(r, 12, VIT_B_TOKENS).tokens) == tokens


@pytest.mark.parametrize(("r", "last"), [(25, 8), ([25] * 8, 377), ([25] * 16, 177), ([25] * 22, 27)])
def test_last_token_count_of_vit_l_16_at_384(r, last):
    assert make_schedule(r, 24, VIT_L_384_TOKENS).tokens[-1] == last


@pytest.mark.parametrize(("dim", "gmacs"), [(192, 1.3), (384, 4.6), (768, 17.6)])
def test_multiply_adds_of_the_unmerged_models_are_the_published_ones(dim, gmacs):
    """1.3, 4.6 and 17.6 G are printed for DeiT-Ti, -S and -B in the ToMe paper (and the DeiT paper)."""
    schedule = make_schedule(0, 12, VIT_B_TOKENS)
    assert round(vit_16_macs(schedule, dim).total / 1e9, 1) == gmacs


def test_r_16_halves_the_multiply_adds_of_vit_b_16():
    base, merged = (vit_16_macs(make_schedule(r, 12, VIT_B_TOKENS), 768).total for r in (0, 16))
    assert round(base / merged, 2) == 2.00


# ---------------------------------------------------------------- parse_r

depths = st.integers(1, 40)
rates = st.integers(0, 60)
inflections = st.sampled_from([-1.0, -0.75, -0.5, -0.3, 0.0, 0.1, 0.5, 0.9, 1.0, -1, 0, 1])


@given(rates, depths)
def test_an_int_is_repeated(r, depth):
    assert parse_r(r, depth) == (r,) * depth


@given(st.data(), depths)
def test_a_list_is_padded_with_zeros(data, depth):
    r = data.draw(st.lists(rates, max_size=depth))
    parsed = parse_r(r, depth)
    assert parsed == tuple(reference.expand_r(r, depth))
    assert len(parsed) == depth and sum(parsed) == sum(r)


@given(rates, inflections, depths)
def test_a_pair_is_a_line_over_the_blocks(r, inflection, depth):
    parsed = parse_r((r, inflection), depth)
    assert parsed == tuple(reference.expand_r((r, inflection), depth))
    assert all(isinstance(value, int) and 0 <= value <= 2 * r for value in parsed)
    assert abs(sum(parsed) - r * depth) <= depth  # each block rounds by less than one
    assert list(parsed) == sorted(parsed, reverse=inflection < 0)


@given(rates, depths)
def test_a_pair_without_inflection_is_constant(r, depth):
    assert parse_r((r, 0.0), depth) == (r,) * depth


def test_two_numbers_in_a_list_are_two_blocks_and_in_a_tuple_a_pair():
    assert parse_r([4, 1], 4) == (4, 1, 0, 0)
    assert parse_r((4, 1), 4) == tuple(reference.expand_r((4, 1), 4))


@pytest.mark.parametrize("r", [5, [5], (5, -1.0), (5, 0.0), (5, 1.0)])
def test_one_block(r):
    assert parse_r(r, 1) == (5,)


@pytest.mark.parametrize(
    "r",
    [
        -1,
        [3, -2],
        [1] * 5,
        (-3, 0.0),
        (8, float("nan")),
        (8, float("inf")),
        "16",
        None,
        2.5,
        [1, 2.5],
        [1, None],
        {"r": 1},
    ],
)
def test_what_is_no_schedule_is_refused(r):
    with pytest.raises(ScheduleError):
        parse_r(r, 4)


# ---------------------------------------------------------------- make_schedule


@given(st.lists(rates, min_size=1, max_size=24), st.integers(2, 600), st.integers(0, 2))
def test_schedules_follow_the_reference_and_never_touch_protected_tokens(r, tokens, protected):
    schedule = make_schedule(r, len(r), tokens, protected)
    effective, counts = reference.token_counts(r, tokens, protected)
    assert (list(schedule.r), list(schedule.tokens), schedule.protected) == (effective, counts, protected)
    for block, wanted in enumerate(r):
        merged = schedule.r[block]
        assert 0 <= merged <= wanted
        assert schedule.tokens[block + 1] == schedule.tokens[block] - merged
        assert 2 * merged <= max(0, schedule.tokens[block] - protected)  # at most half of what may merge
    assert schedule.tokens[-1] >= protected


@given(rates, inflections, depths, st.integers(3, 600))
def test_a_schedule_from_an_int_or_a_pair_is_the_one_from_its_list(r, inflection, depth, tokens):
    assert make_schedule(r, depth, tokens) == make_schedule([r] * depth, depth, tokens)
    pair = (r, inflection)
    assert make_schedule(pair, depth, tokens) == make_schedule(list(parse_r(pair, depth)), depth, tokens)


def test_a_schedule_cannot_be_changed():
    schedule = make_schedule(4, 3, 20)
    with pytest.raises(AttributeError):
        schedule.r = (1, 1, 1)


# ---------------------------------------------------------------- multiply-adds


def vit_16_macs(schedule, dim):
    return model_macs(schedule, dim, 4 * dim, patch_size=16, patches=196, head_outputs=1000)


@given(st.integers(1, 300), st.integers(0, 100), st.integers(1, 64), st.integers(1, 256))
def test_block_macs(tokens, merged, dim, hidden):
    left = max(1, tokens - merged)
    assert block_macs(tokens, left, dim, hidden) == reference.block_macs(tokens, left, dim, hidden)


@given(
    st.lists(rates, min_size=1, max_size=12),
    st.integers(1, 200),
    st.integers(1, 64),
    st.integers(1, 256),
    st.integers(1, 32),
    st.integers(1, 1000),
)
def test_model_macs(r, patches, dim, hidden, patch_size, classes):
    schedule = make_schedule(r, len(r), patches + 1)
    macs = model_macs(schedule, dim, hidden, patch_size, patches, classes)
    _, counts = reference.token_counts(r, patches + 1, protected=1)
    assert macs.total == reference.model_macs(counts, dim, hidden, patches, patch_size, dim * classes)
    pairs = zip(counts[:-1], counts[1:], strict=True)
    assert list(macs.blocks) == [reference.block_macs(*pair, dim, hidden) for pair in pairs]
