"""The picture of merged tokens, against the definition applied pixel by pixel."""

import numpy as np
import paddle
import pytest

from tests.tiny_models import random_image, tiny_model
from tome_core import apply_patch, draw_groups, sources_of
from tome_core.errors import RequestError
from tome_core.palette import PALETTE
from tome_core.visualize import count_groups

DISTILLED_TOKENS = 38


def picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def partition(seed, grid, groups, special=0):
    """Random groups numbered as a source map is: special tokens first, each in a group of its own."""
    drawn = np.random.default_rng(seed).integers(0, groups, grid[0] * grid[1]) + special
    return np.concatenate([np.arange(special), drawn]).astype(np.int32)


def label_of_pixels(shape, sources, grid, box=None):
    """The group of every pixel by its centre, -1 outside of the box."""
    left, top, right, bottom = box or (0, 0, shape[1], shape[0])
    row = np.floor((np.arange(shape[0]) + 0.5 - top) / (bottom - top) * grid[0]).astype(int)
    column = np.floor((np.arange(shape[1]) + 0.5 - left) / (right - left) * grid[1]).astype(int)
    labels = np.full(shape, -1)
    for y, x in np.ndindex(*shape):
        if 0 <= row[y] < grid[0] and 0 <= column[x] < grid[1]:
            labels[y, x] = sources[len(sources) - grid[0] * grid[1] + row[y] * grid[1] + column[x]]
    return labels


def near_another(labels, line):
    """Whether a pixel of another group, or the outside, is within `line` pixels in both directions."""
    around = np.pad(labels, line, constant_values=-1)
    found = np.zeros(labels.shape, bool)
    for down, right in np.ndindex(2 * line + 1, 2 * line + 1):
        found |= around[down : down + labels.shape[0], right : right + labels.shape[1]] != labels
    return found


CASES = [
    # height, width, grid, box, groups, line
    (48, 48, (6, 6), None, 5, 1),
    (48, 48, (6, 6), None, 36, 2),
    (60, 90, (4, 9), None, 3, 3),
    (50, 47, (6, 6), None, 7, 1),  # tokens of unequal sizes in pixels
    (64, 80, (5, 5), (10, 4, 61.0, 55.0), 4, 2),
    (64, 80, (5, 5), (11.4, 3.7, 70.9, 57.0), 6, 1),
    (40, 40, (1, 1), None, 1, 4),
    (40, 40, (4, 4), (-3.0, 0.0, 40.0, 43.0), 3, 1),
]


@pytest.mark.parametrize("height, width, grid, box, groups, line", CASES)
@pytest.mark.parametrize("special", [0, 1, 2])
def test_every_pixel_is_what_the_definition_says(height, width, grid, box, groups, line, special):
    image, sources = picture(1, height, width), partition(2, grid, groups, special)
    drawn = draw_groups(image, sources, grid, box, line)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    labels = label_of_pixels((height, width), sources, grid, box)
    outline = near_another(labels, line)
    for group in np.unique(labels[labels >= 0]):
        inside = labels == group
        mean = image[inside].astype(np.float64).mean(0)
        assert np.abs(drawn[inside & ~outline] - mean).max(initial=0) <= 0.5 + 1e-9
        colours = np.unique(drawn[inside & outline], axis=0)
        assert len(colours) == 1 and np.abs(colours[0].astype(int) - mean).max() >= 30
    outside = labels < 0
    if outside.any():  # still there, nearer to white, whatever was merged
        before, after = image[outside].astype(int), drawn[outside].astype(int)
        np.testing.assert_allclose(255 - after, (255 - before) / 3, atol=1.5)


def test_the_image_is_left_as_it_was():
    image = picture(3, 48, 48)
    before = image.copy()
    draw_groups(image, partition(3, (6, 6), 4), (6, 6), (0, 0, 30, 30))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("seed", range(20))
def test_groups_that_touch_have_outlines_that_differ(seed):
    grid, groups = (10, 10), 9
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 10, (groups, 2))  # blobs: each token belongs to the nearest of nine points
    places = np.stack(np.meshgrid(np.arange(10), np.arange(10), indexing="ij"), -1) + 0.5
    labels = ((places[:, :, None] - seeds) ** 2).sum(-1).argmin(-1)
    drawn = draw_groups(picture(seed, 160, 160), labels.ravel(), grid)
    corners = drawn[::16, ::16]  # the first pixel of a token, where it belongs to an outline
    size = np.bincount(labels.ravel(), minlength=groups)
    checked = 0
    for y, x in np.ndindex(9, 9):
        for other in ((y + 1, x), (y, x + 1)):
            one, two = labels[y, x], labels[other]
            if one != two and min(size[one], size[two]) > 1:
                outlines = [_outline_colour(drawn, labels, each) for each in (one, two)]
                assert np.abs(outlines[0].astype(int) - outlines[1]).max() >= 60
                checked += 1
    assert checked > 20 and corners.size


def _outline_colour(drawn, labels, group):
    """Of the group's first token, whose upper left pixel always borders on another group."""
    y, x = np.argwhere(labels == group)[0]
    return drawn[16 * y, 16 * x]


def test_merged_tokens_stand_out_and_single_ones_do_not():
    sources = np.arange(16)
    sources[5] = sources[10] = 0  # three parts that touch at corners only
    drawn = draw_groups(np.full((64, 64, 3), 90, np.uint8), sources, (4, 4))
    palette = {tuple(colour) for colour in PALETTE.tolist()}
    first = tuple(drawn[0, 0].tolist())
    assert first in palette
    assert {tuple(drawn[16 * i, 16 * i].tolist()) for i in range(3)} == {first}
    quiet = drawn[0, 16]
    assert (
        tuple(quiet.tolist()) not in palette and len(set(quiet.tolist())) == 1 and abs(quiet[0] - 90.0) >= 30
    )


def test_the_line_follows_the_size():
    sources = partition(5, (4, 4), 3)
    widths = []
    for size in (64, 256, 1024):
        drawn = draw_groups(np.full((size, size, 3), 128, np.uint8), sources, (4, 4))
        widths.append(int(np.argmax((drawn[:, size // 8] == 128).all(-1))))
    assert widths == [1, 4, 16]


@pytest.mark.parametrize("family, special", [("vit", 1), ("mae", 1), ("deit_distilled", 2)])
def test_special_tokens_stay_alone_and_are_not_drawn(family, special):
    model = apply_patch(tiny_model(family, depth=4))
    model.r = 8
    image = random_image(0)
    found = sources_of(model, image)
    assert [each.shape for each in found] == [(2, 36 + special)] * 4
    for sources, tokens in zip(found, model.tome.schedule.tokens[1:], strict=True):
        for one in sources:
            assert count_groups(one) == tokens
            for token in range(special):
                assert (one == one[token]).sum() == 1
            pixels = picture(0, 48, 48)
            assert np.array_equal(
                draw_groups(pixels, one, (6, 6)), draw_groups(pixels, one[special:], (6, 6))
            )


def test_sources_of_is_what_the_model_keeps_and_changes_nothing():
    model = apply_patch(tiny_model("vit"), trace_source=True)
    model.r = 5
    image = paddle.to_tensor(random_image(3))
    with paddle.no_grad():
        model(image)
    kept = [each.numpy() for each in model.tome.sources[1:]]
    model.tome.trace_source = False
    model.train()
    for found, wanted in zip(sources_of(model, image), kept, strict=True):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, wanted)
    assert model.training and not model.tome.trace_source
    np.testing.assert_array_equal(sources_of(model, image.numpy())[-1], kept[-1])


def test_without_merging_every_patch_is_drawn():
    model = apply_patch(tiny_model("deit_distilled"))
    for r in (0, [0, 4]):  # nothing at all, and nothing at first
        model.r = r
        found = sources_of(model, random_image(1))
        np.testing.assert_array_equal(found[0], [range(DISTILLED_TOKENS)] * 2)
        assert len(found) == 3 and count_groups(found[-1][0]) == model.tome.schedule.tokens[-1]


def test_what_cannot_be_drawn_is_refused():
    image, sources = picture(0, 48, 48), partition(0, (6, 6), 4)
    for arguments, said in (
        ((image / 255, sources, (6, 6)), "float64"),
        ((image[..., 0], sources, (6, 6)), "[48, 48]"),
        ((image, sources[:-1], (6, 6)), "6 x 6"),
        ((image, sources[None], (6, 6)), "one image's"),
        ((image, sources.astype(float), (6, 6)), "integers"),
        ((image, partition(0, (20, 20), 4), (20, 20)), "enlarge"),
        ((image, sources, (6, 6), (40, 40, 80, 80)), "enlarge"),
    ):
        with pytest.raises(RequestError) as caught:
            draw_groups(*arguments)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="apply_patch"):
        sources_of(tiny_model("vit"), random_image(0))
