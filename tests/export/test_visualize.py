"""`tome-export visualize`: one picture from every runtime and the Python model, and what it consists of."""

import base64
import importlib.util
import io
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from tests.export import small
from tome_core import draw_groups, sources_of
from tome_core.matching import bipartite_soft_matching
from tome_core.merging import merge_source
from tome_core.taps import tapped
from tome_export.bundle import Bundle
from tome_export.errors import BundleError, ImageError
from tome_export.pictures.html import LIMIT, data_uri, merged_thumbnail
from tome_export.pictures.panels import patch_grid, view
from tome_export.pictures.sheet import Panel, plain, sheet
from tome_export.predict import Prediction
from tome_export.preprocess import PRESETS, load_image, preset
from tome_export.quiet import quiet
from tome_export.runtimes import open_runtime
from tome_export.sources import block_labels, sources_after_blocks
from tome_export.visualize import Seen, draw, evenly, visualize_files

COMMAND = Path(sysconfig.get_path("scripts")) / "tome-export"
NAMES = ("china.png", "flower.png", "grace_hopper.png")
SEED, GRID = 21, (14, 14)  # the merges of this seed hang on no rounding


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos):
    """A folder with three photographs and two bundles: `infer` of real size, `plain` without sources."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, photo in zip(NAMES, photos, strict=True):
        photo.save(folder / name)
    small.export_small("vit_ti16", folder / "infer", r=16, outputs=("logits", "sources"), seed=SEED)
    small.export_small("small_deit_distilled", folder / "plain", r=8)
    return folder


@pytest.fixture(scope="module")
def model():
    return small.build("vit_ti16", 16, seed=SEED)


def run(arguments, folder):
    process = [COMMAND, "visualize", *map(str, arguments)]
    return subprocess.run(process, cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ)


# ---------------------------------------------------------------- the same from everywhere


def test_every_runtime_and_the_model_give_the_same_bytes(folder, model, photos):
    bundle = Bundle.open(folder / "infer")
    images = bundle.manifest.preprocess.apply(photos)
    _, margins = small.answers(model, images)
    assert margins.min() > 1e-5, "these photographs hang on rounding: choose another seed"
    wanted = sources_of(model, images)[-1]
    crops = [np.asarray(bundle.manifest.preprocess._square(photo)) for photo in photos]
    pictures = [
        draw_groups(crop, sources, GRID).tobytes() for crop, sources in zip(crops, wanted, strict=True)
    ]
    assert len(set(pictures)) == 3
    for name in ("paddle", "onnx"):
        with open_runtime(name, bundle) as runtime:
            for crop, image, picture in zip(crops, images, pictures, strict=True):
                sources = runtime.run(image[None])["sources"][0]
                assert draw_groups(crop, sources, GRID).tobytes() == picture


def test_the_command_writes_what_the_model_merged(folder, model, photos):
    written = {}
    for name in ("paddle", "onnx"):
        done = run(["infer", *NAMES, "--out", f"{name}.png", "--runtime", name], folder)
        assert (done.returncode, done.stderr) == (0, "")
        first, *rows, last = done.stdout.splitlines()
        assert re.fullmatch(rf"{name} \d+\.\d+\.\d+", first)
        assert len(rows) == 3
        for row, photo in zip(rows, NAMES, strict=True):
            assert re.fullmatch(rf"  {re.escape(photo)} +197 -> 11 tokens  class \d+ +0\.\d{{4}}", row)
        written[name] = (folder / f"{name}.png").read_bytes()
        width, height = Image.open(folder / f"{name}.png").size
        assert re.fullmatch(rf"{name}\.png  {width} x {height} pixels, [\d.]+ MB", last)
    assert written["paddle"] == written["onnx"]

    bundle = Bundle.open(folder / "infer")
    images = bundle.manifest.preprocess.apply(photos)
    sources = sources_of(model, images)[-1]
    logits = small.answers(model, images)[0]["logits"].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    seen = [
        Seen(((11, its),), Prediction(int(p.argmax()), f"class {p.argmax()}", p.max()))
        for its, p in zip(sources, probabilities, strict=True)
    ]
    page = draw(bundle, NAMES, photos, seen)
    assert page.tobytes() == Image.open(io.BytesIO(written["onnx"])).tobytes()
    for photo, its in zip(photos, sources, strict=True):  # the panels stand on the page, pixel for pixel
        merged = draw_groups(np.asarray(photo), its, GRID, bundle.manifest.preprocess.seen(*photo.size))
        assert holds(page, photo) and holds(page, Image.fromarray(merged))


def holds(page, picture):
    """Whether the picture stands somewhere on the page."""
    page, picture = np.asarray(page), np.asarray(picture)
    height, width = picture.shape[:2]
    starts = (page[: len(page) - height + 1, : page.shape[1] - width + 1] == picture[0, 0]).all(-1)
    return any(
        np.array_equal(page[y : y + height, x : x + width], picture)
        for y, x in np.argwhere(starts)
        if np.array_equal(page[y, x : x + width], picture[0])
    )


# ---------------------------------------------------------------- where the model looked


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("width, height", [(640, 427), (427, 640), (500, 500), (91, 64), (1200, 333)])
def test_the_model_sees_exactly_the_box(name, width, height):
    """Black within it, or black around it: what reaches the model is all black, or all white."""
    preprocess = preset(name, 224)
    left, top, right, bottom = preprocess.seen(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    reach = 2 * max(1, min(width, height) / 224) + 2  # a filter looks this far, in pixels of the photograph
    inner = np.full((height, width, 3), 255, np.uint8)
    inner[
        max(0, int(np.floor(top - reach))) : int(np.ceil(bottom + reach)),
        max(0, int(np.floor(left - reach))) : int(np.ceil(right + reach)),
    ] = 0
    assert not np.asarray(preprocess._square(Image.fromarray(inner))).any()
    for side, edge in enumerate((left, top, right, bottom)):  # a line well inside each border is seen
        axis, inwards = 1 - side % 2, reach if side < 2 else -reach
        place = int(edge + inwards)
        line = np.zeros((height, width, 3), np.uint8)
        line[(slice(None), slice(place, place + 2)) if axis else slice(place, place + 2)] = 255
        seen = np.asarray(preprocess._square(Image.fromarray(line)))[..., 0]
        where = np.flatnonzero(seen.max(1 - axis) > 40)
        scale = 224 / ((right - left) if axis else (bottom - top))
        expected = (place + 1 - (left if axis else top)) * scale
        assert len(where) and abs((where.min() + where.max() + 1) / 2 - expected) <= max(1.0, scale)


def test_small_photographs_are_enlarged_and_others_are_not(photos):
    recipe = preset("vit", 224)
    for photo in photos:
        assert view(photo, recipe, GRID).photo is photo
        shown = view(photo, recipe, GRID, 300)
        assert max(shown.photo.size) == 300
    tiny = view(photos[0].resize((48, 32)), recipe, GRID)
    assert tiny.photo.size == (48 * 6, 32 * 6) and tiny.box == recipe.seen(48 * 6, 32 * 6)
    large = view(photos[2].resize((3413, 4000)), recipe, GRID)
    assert large.photo.size == (3413, 4000)
    with pytest.raises(ImageError, match="--size"):
        view(photos[0].resize((20000, 40)), recipe, GRID)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK"])
def test_every_kind_of_image_is_drawn(folder, photos, mode, tmp_path):
    grey = photos[2].convert("L").resize((75, 96))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = photos[2].resize((75, 96)).convert(mode)
    if mode == "RGBA":
        image.putalpha(grey)
    path = tmp_path / "photo.tif"
    image.save(path)
    drawn = visualize_files(folder / "infer", [path], tmp_path / "out.png", runtime="onnx")
    assert len(np.unique(drawn.seen[0].sources[0][1])) == 11
    assert holds(Image.open(tmp_path / "out.png"), view(load_image(path), preset("vit", 224), GRID).photo)


# ---------------------------------------------------------------- block by block


def labels_of(model, images):
    """A model's labels, one or None per block, as a graph that reports them would give them."""
    with tapped(model) as seen, paddle.no_grad():
        model(paddle.to_tensor(images))
    return block_labels({name: value.numpy() for name, value in seen.items()}, len(model.tome.schedule.r))


@pytest.mark.parametrize("name", small.MODELS)
@pytest.mark.parametrize("r", [0, 8, 16, (16, -1.0), [0, 9, 0, 5]])
def test_labels_compose_to_the_models_sources(details, name, r):
    model = small.build(name, r)
    images = preset("vit", small.SIZE).apply(details[:4])
    labels = labels_of(model, images)
    wanted = sources_of(model, images)
    state = model.tome
    found = sources_after_blocks(labels, state.tokens, state.class_token, state.distill_token)
    assert len(found) == len(wanted) == small.DEPTH
    for each, expected in zip(found, wanted, strict=True):
        assert each.dtype == np.int32
        np.testing.assert_array_equal(np.broadcast_to(each, expected.shape), expected)


@pytest.mark.parametrize("class_token, distill_token", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("tokens", [5, 8, 37, 66])
def test_labels_compose_with_and_without_special_tokens(class_token, distill_token, tokens):
    rng = np.random.default_rng(tokens)
    labels, wanted, source = [], [], None
    for r in (3, 0, 999, 1, 999, 999):
        entering = tokens if source is None else int(source.numpy().max()) + 1
        metric = paddle.to_tensor(rng.normal(size=(3, entering, 6)).astype(np.float32))
        match = bipartite_soft_matching(metric, r, class_token, distill_token)
        source = merge_source(match, source)
        labels.append(match.label.numpy())
        wanted.append(source.numpy())
    for each, expected in zip(
        sources_after_blocks(labels, tokens, class_token, distill_token), wanted, strict=True
    ):
        np.testing.assert_array_equal(each, expected)


@pytest.mark.parametrize(
    "label, said",
    [
        ([[-3, 1, -1, 3]], "shape"),
        ([[-3, 1, -1, 3, 1.5]], "whole"),
        ([[-3, 1, -1, 3, float("nan")]], "whole"),
        ([[-3, 1, -1, 3, float("inf")]], "whole"),
        ([[-3, 1, -1, 1, 3]], "odd token"),
        ([[-3, 1, -5, 3, 1]], "numbered"),
        ([[-1, 1, -1, 3, 1]], "numbered"),
        ([[-3, 1, -2, 3, 1]], "numbered"),
        ([[-3, 1, 2, 3, -1]], "numbered"),
        ([[1, 1, -3, 3, -1]], "class token"),
    ],
)
def test_labels_of_no_merging_are_refused(label, said):
    with pytest.raises(BundleError, match=said):
        sources_after_blocks([None, np.array(label)], 5, True)
    with pytest.raises(BundleError, match="distillation"):
        sources_after_blocks([np.array([[-3, 1, 1, 3, -1]])], 5, True, True)


def test_panels_are_spread_over_the_depth():
    assert evenly(range(4), 6) == [0, 1, 2, 3]
    assert evenly(range(12), 6) == [1, 3, 5, 7, 9, 11]
    for count in range(7, 40):
        chosen = evenly(range(count), 6)
        steps = np.diff(chosen)
        assert len(chosen) == 6 and chosen[-1] == count - 1 and steps.max() - steps.min() <= 1


def test_a_strip_shows_every_block(folder, model, photos, tmp_path):
    (tmp_path / "photo.png").write_bytes((folder / NAMES[2]).read_bytes())
    drawn = visualize_files(
        folder / "infer", [tmp_path / "photo.png"], tmp_path / "strip.png", blocks=True, size=224
    )
    (seen,) = drawn.seen
    assert [block for block, _ in seen.sources] == [1, 3, 5, 7, 9, 11]
    image = Bundle.open(folder / "infer").manifest.preprocess.apply(photos[2])
    wanted = sources_of(model, image)
    shown = view(photos[2], preset("vit", 224), GRID, 224)
    page = Image.open(tmp_path / "strip.png")
    for block, sources in seen.sources:
        np.testing.assert_array_equal(sources, wanted[block][0])
        assert len(np.unique(sources)) == model.tome.schedule.tokens[block + 1]
        assert holds(page, shown.merged(wanted[block][0]))


def test_a_bundle_without_sources_is_drawn_from_its_decisions(folder, photos, tmp_path):
    model = small.build("small_deit_distilled", 8)
    bundle = Bundle.open(folder / "plain")
    visualize_files(folder / "plain", [folder / NAMES[0]], tmp_path / "out.png")
    wanted = sources_of(model, bundle.manifest.preprocess.apply(photos[0]))[-1][0]
    shown = view(photos[0], bundle.manifest.preprocess, (8, 8))
    assert holds(Image.open(tmp_path / "out.png"), shown.merged(wanted))


# ---------------------------------------------------------------- the page and the file


def test_text_fits_beneath_its_picture():
    picture = Image.new("RGB", (160, 90), (200, 40, 40))
    long = Panel(picture, "a name that is longer than the picture is wide.jpg", "and so is this, what a pity")
    page = np.asarray(sheet([[Panel(picture, "short"), long], [Panel(picture.resize((400, 100)), "x", "y")]]))
    red = (page == (200, 40, 40)).all(-1)
    top = int(np.argmax(red.any(1)))
    columns = np.flatnonzero(red[top])
    gap = np.flatnonzero(np.diff(columns) > 1)
    first, second = columns[: gap[0] + 1], columns[gap[0] + 1 :]
    assert len(first) == len(second) == 160
    between = page[:, first[-1] + 1 : second[0]]
    beyond = page[: top + 130, second[-1] + 1 :]
    assert (between[: top + 130] == 255).all() and (beyond == 255).all()
    assert (page[top + 90 : top + 130, second[0] : second[-1] + 1] < 128).any()


def test_letters_that_the_font_lacks_are_replaced():
    assert plain("Café zürich_1.JPG") == "Cafe zurich_1.JPG" and plain("军装\n") == "???"


@pytest.mark.parametrize(
    "suffix, kind", [(".png", "PNG"), (".JPG", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF")]
)
def test_the_format_follows_the_suffix_and_a_file_is_replaced(folder, tmp_path, suffix, kind):
    out = tmp_path / f"out{suffix}"
    out.write_text("old")
    drawn = visualize_files(folder / "infer", [folder / NAMES[1]], out, size=240)
    with Image.open(out) as image:
        assert image.format == kind and image.size == drawn.size
        image.load()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


BAD = {
    "no-photo": (["infer", "none.jpg"], "none.jpg: no such file"),
    "no-bundle": (["none", NAMES[0]], "none: no such bundle"),
    "suffix": (["infer", NAMES[0], "--out", "merged.gif"], "merged.gif: a picture's name ends in .png"),
    "no-suffix": (["infer", NAMES[0], "--out", "merged"], "ends in .png"),
    "out-is-a-folder": (["infer", NAMES[0], "--out", "folder.png"], "is a folder"),
    "no-folder": (["infer", NAMES[0], "--out", "none/merged.png"], "there is no folder none"),
    "out-is-a-photo": (["infer", NAMES[0], "--out", f"./{NAMES[0]}"], "is one of the photos"),
    "unwritable": (["infer", NAMES[0], "--out", "/proc/merged.png"], "/proc/merged.png"),
    "runtime": (["infer", NAMES[0], "--runtime", "tvm"], "'tvm'"),
    "precision": (["infer", NAMES[0], "--precision", "fp8"], "fp8"),
    "size": (["infer", NAMES[0], "--size", "0"], "'--size'"),
    "too-large": (["infer", NAMES[0], "--size", "50000"], "--size"),
    "no-arguments": ([], "DIR"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_get_one_line_and_write_nothing(folder, tmp_path, case):
    arguments, said = BAD[case]
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "folder.png").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run(arguments, tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_manifest_that_contradicts_itself_is_refused(tiny_bundle):
    from dataclasses import replace

    assert patch_grid(tiny_bundle.manifest) == (4, 4)
    wrong = replace(tiny_bundle.manifest, model=replace(tiny_bundle.manifest.model, patch_size=4))
    with pytest.raises(BundleError, match="8 x 8"):
        patch_grid(wrong)


@pytest.mark.slow
def test_the_picture_in_the_readme_is_what_its_program_makes():
    pictures = Path(__file__).resolve().parents[2] / "docs" / "pictures"
    spec = importlib.util.spec_from_file_location("make_pictures", pictures / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    with quiet():
        made = make.page()
    with Image.open(pictures / "merged.jpg") as kept:
        assert kept.size == made.size
        difference = np.abs(np.asarray(kept.convert("RGB"), np.int16) - np.asarray(made, np.int16))
    assert difference.mean() < 3  # what JPEG loses


# ---------------------------------------------------------------- inside HTML


def decoded(uri):
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64" and len(uri) <= LIMIT
    image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    image.load()
    assert image.format == "PNG"
    return image


def test_thumbnails_are_the_merged_picture(folder, model, photos):
    recipe = preset("vit", 224)
    for photo, sources in zip(photos, sources_of(model, recipe.apply(photos))[-1], strict=True):
        shown = decoded(merged_thumbnail(photo, sources, recipe, GRID, size=224)).convert("RGB")
        wanted = view(photo, recipe, GRID, 224).merged(sources)
        assert shown.size == wanted.size
        difference = np.abs(np.asarray(shown, np.int16) - np.asarray(wanted, np.int16))
        assert difference.mean() < 4
    assert decoded(merged_thumbnail(photo, sources, recipe, GRID, size=1500)).width > 200


def test_a_thumbnail_that_cannot_be_compressed_shrinks():
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3)).astype(np.uint8)
    small_one = decoded(data_uri(Image.fromarray(noise)))
    assert 100 < small_one.width < 600 and abs(small_one.width / small_one.height - 1.5) < 0.05
    flat = Image.new("RGB", (600, 400), (1, 2, 3))
    assert decoded(data_uri(flat)).tobytes() == flat.tobytes()
    with pytest.raises(ValueError):
        data_uri(flat, 30)
