"""The HTML report says what was found, all of it, correctly escaped, and needs nothing but itself."""

import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.export.parity import faults
from tests.export.parity.test_verify import change_onnx, copy, nan_weight, verify  # noqa: F401
from tome_export.errors import RequestError
from tome_export.parity.figures import compare
from tome_export.parity.html import check_target, page, write_report
from tome_export.parity.report.environment import command
from tome_export.parity.report.groups import differing, picture_of
from tome_export.parity.report.markup import tag, text
from tome_export.parity.report.numbers import listed, sci, share
from tome_export.parity.report.panels import HEAT, heat_step
from tome_export.parity.report.words import TENSORS
from tome_export.parity.result import Figures, Finding
from tome_export.parity.samples import make_sample
from tome_export.parity.stages import PARTS
from tome_export.preprocess import load_image, preset


class Page(HTMLParser):
    """A page taken apart: its text, its tables (rows of (text, title)), and every attribute. Fails if tags do
    not balance."""

    def __init__(self, markup):
        super().__init__()
        self.open, self.attributes, self.tables, self.texts = [], [], [], []
        self.feed(markup)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.texts).split())

    def handle_starttag(self, name, attributes):
        self.attributes += [(name, *each) for each in attributes]
        if name in ("meta", "br"):
            return
        self.open.append(name)
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])
        elif name in ("th", "td"):
            self.tables[-1][-1].append(["", dict(attributes).get("title")])
        elif name in ("p", "li", "dd", "h1", "h2", "h3", "text", "title"):
            self.texts.append("\n")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_startendtag(self, name, attributes):
        raise AssertionError(f"<{name}/>")

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.texts.append(data)
        if "table" in self.open and self.open[-1] != "caption":
            self.tables[-1][-1][-1][0] += data

    def table(self, *heads):
        """The tables with these words in their first row."""
        return [
            table for table in self.tables if {*heads} <= {cell for cell, _ in table[0]} and len(table) > 1
        ]


def read(found) -> Page:
    """The page of a verification, after everything that must hold for any page."""
    markup = page(found)
    read = Page(markup)
    assert markup.startswith("<!DOCTYPE html>") and "<script" not in markup
    for _, name, value in read.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "srcset", "data", "xlink:href"):
            assert value.startswith("data:image/png;base64,")
    style = re.search(r"<style>(.*?)</style>", markup, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style and style.count("{") == style.count("}")
    drawings = re.findall(r"<svg.*?</svg>", markup, re.DOTALL)
    assert drawings
    for drawing in drawings:
        for element in ElementTree.fromstring(drawing).iter():
            for name in ("x", "y", "width", "height", "cx", "cy", "x1", "x2", "y1", "y2"):
                assert float(element.get(name, 0)) >= 0 and float(element.get(name, 0)) < 1e5
    for finding in [*found.findings, *(each for result in found.results for each in result.findings)]:
        assert " ".join(finding.what.split()) in read.text
    return read


def verdict(found) -> str:
    return Page(re.search(r"<h1>.*?</h1>", page(found), re.DOTALL)[0]).text


@pytest.fixture(scope="module")
def good(small_bundles, tmp_path_factory, photos):
    """Sixteen tokens merge in each block, compared on real photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for name, photo in zip(("china", "flower", "hopper"), photos, strict=True):
        photo.save(folder / f"{name}.png")
    return verify(small_bundles["small_deit", "r16"], images=folder)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A fault planted in block 2 of the graph that both runtimes have."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        out = tmp_path_factory.mktemp("bad") / "out"
        found = faults.export_with(faults.transposed, "small_vit", out, monkeypatch)
    return replace(found, bundle=replace(found.bundle, path=out))  # where it would have been moved to


# ---------------------------------------------------------------- what it says


def test_a_good_bundle_passes_and_it_says_what_was_compared(good):
    found, manifest = read(good), good.bundle.manifest
    assert verdict(good).startswith(
        "Pass. small_deit-r16: Paddle Inference fp32 and ONNX Runtime fp32 compute"
    )
    for said in (
        "small_deit at 64 px",
        "random, seed 3",
        manifest.created[:10],
        "3 inputs, one at a time and in batches of 3",
        f"Paddle Inference fp32 ({manifest.versions.paddle})",
        f"ONNX Runtime fp32 ({manifest.versions.onnxruntime})",
        "china.png, flower.png, hopper.png",
    ):
        assert said in found.text
    assert "What is wrong" not in found.text


def test_the_figures_are_those_of_the_data(good):
    (logits,) = read(good).table("max abs", "PSNR")
    rows = logits[1:]
    assert len(rows) == 2 * len(good.results)
    for result, free, forced in zip(good.results, rows[::2], rows[1::2], strict=True):
        for its, row in ((result, free), (result.forced, forced)):
            found = [float(title) for _, title in row if title is not None]
            wanted = [its.max_abs, its.mean_abs, its.max_rel, its.cosine_min, its.psnr]
            wanted += [its.top1_agreement, its.top5_agreement]
            if its is result.forced:
                wanted.insert(3, result.limits.logits)
            assert found == wanted
            assert row[2][0] == f"{its.max_abs:.1e}" and row[7][0] == f"{its.psnr:.1f} dB"


def test_every_block_is_in_the_table_and_in_the_picture(good):
    found = read(good)
    tables = found.table("decisions", "noise", "attention")
    assert len(tables) == len(good.results)
    names = list(TENSORS)
    for result, table in zip(good.results, tables, strict=True):
        for block, row in zip(result.blocks, table[1:-1], strict=True):
            counts = [block.block, block.tokens, block.r, block.decisions, block.agreed, block.near_ties]
            assert [int(cell.replace(",", "")) for cell, _ in row[:6]] == counts
            errors = [None if name not in block.errors else repr(block.errors[name]) for name in names]
            assert [title for _, title in row[8:]] == errors
            assert f"block {block.block}, attention: {sci(block.errors['attended'])}, limit" in found.text
    assert [title for _, title in tables[0][-1][7:9]] == [
        repr(good.results[0].limits.similarity),
        repr(good.results[0].limits.stage),
    ]


def test_a_fault_is_named_first_with_block_runtime_and_input(bad):
    found = read(bad)
    assert not bad.passed
    told = verdict(bad)
    assert told.startswith("Fail. out: Paddle Inference fp32 and ONNX Runtime fp32 do not compute")
    assert told.endswith("wrong is block 2, attention.")
    finding = bad.results[0].findings[0]
    start = found.text.index("What is wrong")
    assert start < found.text.index("Schedule")
    section = found.text[start : found.text.index("Schedule")]
    assert section.index("Block 2, attention") < section.index("Paddle Inference fp32: ")
    assert f"On {finding.input}." in section and "the traced graph and the weights" in section


def test_a_fault_of_one_runtime_only(copy):  # noqa: F811
    change_onnx(copy, nan_weight)
    found = verify(copy, batch_sizes=(1,))
    told = read(found)
    assert verdict(found).endswith("wrong is block 1, MLP. Paddle Inference fp32 agrees.")
    assert "Paddle Inference agrees, so the traced graph is right" in told.text
    assert "block 2, attention: not finite, limit" in told.text and "not compared" in told.text


def test_what_is_first_in_the_graph_comes_first(good):
    paddle, onnx = good.results
    late, early, later = (
        Finding("mlp", 4, None, "a"),
        Finding("norm", 1, "x", "b"),
        Finding("norm", 3, "x", "c"),
    )
    results = (
        replace(paddle, findings=(late,), passed=False),
        replace(onnx, findings=(early, later), passed=False),
    )
    found = replace(good, results=results, findings=(Finding("preprocess", None, None, "mean is 7"),))
    titles = re.findall(r"<li[ >].*?<h3>(.*?)</h3>", page(found), re.DOTALL)
    places = [re.sub(r"<.*", "", title) for title in titles]
    assert places == ["Preprocess", "Block 1, norm", "Block 4, MLP", "Block 3, norm"]
    assert ["start here" in title for title in titles] == [True, True, True, False]


def test_only_the_bundle_is_wrong(good):
    found = replace(good, findings=(Finding("preprocess", None, None, "mean is 7 instead of 0.5"),))
    read(found)
    assert verdict(found).startswith("Fail. small_deit-r16: preprocess is not as it should be")


def test_near_ties_are_told(good):
    paddle, onnx = good.results
    block = replace(paddle.blocks[0], agreed=paddle.blocks[0].agreed - 2, near_ties=2)
    found = replace(good, results=(replace(paddle, blocks=(block, *paddle.blocks[1:]), near_ties=2), onnx))
    total = paddle.decisions + onnx.decisions
    assert f"{total - 2:,} of {total:,} merge decisions agree, 2 hang on rounding" in verdict(found)
    assert f"{block.agreed} agree, 2 near ties, 0 faults" in read(found).text


# ---------------------------------------------------------------- odd data


@pytest.mark.parametrize("against", ["dygraph", "paddle", "onnx"])
def test_nothing_merges(against, small_bundles):
    found = verify(small_bundles["small_vit", "r0"], against=against, batch_sizes=(1,))
    told = read(found)
    assert "Nothing merges (r = 0)" in told.text and "What merged" not in told.text
    assert verdict(found).startswith("Pass.") and "decisions" not in verdict(found)


def test_one_model_only_is_not_called_a_pass(good):
    found = replace(good, results=(), groups={}, against="paddle")
    assert "nothing was compared" in verdict(found) and "Pass" not in verdict(found)
    read(found)
    found = replace(found, findings=(Finding("preprocess", None, None, "mean is 7"),))
    assert verdict(found).startswith("Fail.")
    read(found)


def test_missing_figures(good):
    lost = replace(good.results[0], forced=None, psnr=None, decisions=0, merge_agreement=None, blocks=())
    told = read(replace(good, results=(lost, replace(good.results[1], psnr=None)), picture=None, groups={}))
    assert "not compared: no valid decisions to follow" in told.text and "no difference" in told.text
    assert "None of the inputs is a picture" in told.text and "could not be looked into" in told.text


def test_huge_and_broken_numbers(good):
    worst = compare(np.full((1, 5), np.nan), np.zeros((1, 5)))
    for value in (worst.max_abs, 1e30, float("inf"), float("nan")):
        blocks = tuple(
            replace(
                block,
                agreed=0,
                faults=block.decisions,
                noise=value,
                errors=dict.fromkeys(block.errors, value),
            )
            for block in good.results[0].blocks
        )
        figures = Figures(value, value, value, -1.0, 0.0, 0.0, 0.0)
        broken = replace(
            good.results[0],
            **vars(figures),
            forced=figures,
            blocks=blocks,
            passed=False,
            findings=(Finding("mlp", 1, None, "is not finite"),),
        )
        told = read(replace(good, results=(broken,)))
        assert ("1.0e+30" if value == 1e30 else "not finite") in told.text
        assert "beyond it" in told.text


def test_many_precisions_blocks_and_inputs(good):
    paddle, onnx = good.results
    blocks = tuple(replace(paddle.blocks[0], block=index) for index in range(32))
    half = replace(paddle, precision="fp16", blocks=blocks, limits=replace(paddle.limits, stage=0.03))
    names = tuple(f"photo:{index}" for index in range(300))
    found = replace(good, results=(paddle, half, replace(onnx, precision="int4")), inputs=names)
    told = read(found)
    assert "Paddle Inference fp16" in told.text and "ONNX Runtime int4" in told.text
    assert "300 synthetic inputs" in told.text and "photo:299" in told.text
    assert {table[1][2][0] for table in told.table("bounds", "allowed")} == {"3.8e-06", "3.0e-02"}
    assert (
        command(found) == f"tome-export verify {good.bundle.path} --against dygraph --samples 300 --batch 1,3"
    )


def test_everything_is_escaped(good):
    rude = "</h1><script>alert('&\"')</script>\x00\udcff"
    manifest = good.bundle.manifest
    manifest = replace(
        manifest,
        model=replace(manifest.model, name=rude),
        weights=replace(manifest.weights, source=rude, seed=None),
        versions=replace(manifest.versions, platform=rude),
    )
    bundle = replace(good.bundle, manifest=manifest, path=good.bundle.path / re.sub("[/\0]", "", rude))
    onnx = replace(
        good.results[1],
        passed=False,
        runtime=rude,
        findings=(Finding(rude, 1, rude, rude[:-2]), Finding("norm", 2, rude, "<b>")),
    )
    blocks = (replace(onnx.blocks[0], errors={rude: 1.0, "norm1": 0.0}), *onnx.blocks[1:])
    found = replace(
        good,
        bundle=bundle,
        inputs=(*good.inputs, rude),
        results=(good.results[0], replace(onnx, blocks=blocks)),
        groups=good.groups | {rude: good.groups["dygraph"]},
    )
    told = page(found)
    told.encode("utf-8")
    assert "<script" not in told and "\x00" not in told and "\ufffd" in told
    Page(told)
    for drawing in re.findall(r"<svg.*?</svg>", told, re.DOTALL):
        ElementTree.fromstring(drawing)


# ---------------------------------------------------------------- pictures


def test_groups_that_agree_whatever_their_numbers(good):
    reference = good.groups["dygraph"]
    shuffled = np.random.default_rng(0).permutation(reference.max() + 1)[reference]
    assert not differing(shuffled, reference).any() and (shuffled != reference).any()
    found = replace(good, groups=good.groups | {"onnx fp32": shuffled})
    assert read(found).text.count("all as in the reference") == 2
    assert 'class="cross"' not in page(found)


def test_a_token_in_another_group_is_marked_where_it_is(good):
    reference = good.groups["dygraph"]
    sizes = np.bincount(reference)
    one, other = np.argsort(-sizes)[:2]
    moved = next(token for token in np.flatnonzero(reference == one) if token > 0)
    groups = reference.copy()
    groups[moved] = other
    assert np.flatnonzero(differing(groups, reference)).tolist() == [moved]
    found = page(replace(good, groups=good.groups | {"onnx fp32": groups}))
    assert "1 of 65 in another group" in Page(found).text
    (path,) = re.findall(r'<path d="([^"]*)" class="cross"', found)
    x, y, wide, high = (float(number) for number in re.match(r"M(\S+) (\S+)l(\S+) (\S+?)m", path).groups())
    drawn = next(part for part in found.split("<figure>") if 'class="cross"' in part)
    width, height = (float(side) for side in re.search(r'viewBox="0 0 (\d+) (\d+)"', drawn).groups())
    row, column = divmod(moved - 1, 8)  # a class token, then 8 x 8 patches
    assert ((x + wide / 2) / width * 8, (y + high / 2) / height * 8) == pytest.approx(
        (column + 0.5, row + 0.5), abs=0.05
    )


def test_who_has_no_valid_decisions_is_named(good):
    groups = {who: its for who, its in good.groups.items() if who != "onnx fp32"}
    assert "ONNX Runtime fp32: its decisions are not valid" in read(replace(good, groups=groups)).text
    only = read(replace(good, groups={"onnx fp32": good.groups["onnx fp32"]}))
    assert "nothing to compare them with" in only.text


def test_a_photograph_that_has_gone(good, tmp_path):
    told = read(replace(good, picture=str(tmp_path / "gone.png")))
    assert "The groups could not be drawn" in told.text and "gone.png" in told.text


@pytest.mark.parametrize("recipe", ["vit", "deit", "paddleclas"])
def test_a_sample_is_drawn_as_the_picture_it_was_made_of(recipe, good, photos):
    """Normalising the picture again gives the sample; a file is drawn as it is."""
    preprocess = preset(recipe, 64)
    picture = picture_of("photo:3", preprocess)
    assert picture.size == (64, 64)
    pixels = np.asarray(picture, np.float32) / np.float32(255)
    again = ((pixels - np.float32(preprocess.mean)) / np.float32(preprocess.std)).transpose(2, 0, 1)
    np.testing.assert_allclose(
        again, make_sample("photo:3", preprocess), atol=0.5 / 255 / min(preprocess.std)
    )
    assert picture_of(good.inputs[0], preprocess).tobytes() == load_image(good.inputs[0]).tobytes()


# ---------------------------------------------------------------- small parts


def test_all_parts_of_a_block_have_a_name():
    assert [*TENSORS] == [name for name in PARTS if name != "label"]


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0%"), (1.0, "100%"), (0.99996, "99.996%"), (0.5, "50.0%"), (0.00001, "0.001%")]
)
def test_a_share_is_never_rounded_to_all_or_nothing(value, said):
    assert share(value) == said


def test_colours_follow_the_limit():
    steps = [heat_step(error, 1e-6) for error in (0.0, 9e-9, 2e-8, 1e-6, 1.01e-6, 3.4028235e38, float("nan"))]
    assert steps == [0, 0, 1, len(HEAT) - 1, len(HEAT), len(HEAT), len(HEAT)]


def test_words_and_markup():
    assert listed(["a", "b", "c"]) == "a, b and c" and listed(["a"]) == "a" and listed([]) == ""
    assert tag("a", "<", tag("b"), class_='"', data_x=None) == '<a class="&quot;">&lt;<b></b></a>'
    assert text("\x07\x85\ud800\ufffeä\n") == "\ufffd\ufffd\ufffd\ufffdä\n"


# ---------------------------------------------------------------- the file


def test_the_file_replaces_another_and_leaves_nothing_else(good, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    size = write_report(good, out)
    assert size == out.stat().st_size and "<h1>" in out.read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    link = tmp_path / "link.htm"
    link.symlink_to(out)
    out.write_text("old")
    write_report(good, link)
    assert link.is_symlink() and out.stat().st_size == pytest.approx(size, abs=9)
    assert stat.S_IMODE(out.stat().st_mode) & 0o600 == 0o600


def test_a_write_that_fails_leaves_the_old_file(good, tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RequestError, match="report.html: cannot be written .No space left on device."):
        write_report(good, out)
    assert out.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("report.pdf", "ends in .html or .htm"),
        ("nowhere/report.html", "there is no folder"),
        ("folder.html", "is a folder"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_the_work(name, said, tmp_path, good):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RequestError, match=said):
        check_target(tmp_path / name)
    done = verify_command(good, "--html", str(tmp_path / name))
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def verify_command(found, *arguments):
    code = "from tome_export.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "verify", str(found.bundle.path), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_writes_it_and_says_where(good, tmp_path):
    out = tmp_path / "my report.html"
    done = verify_command(good, "--against", "onnx", "--samples", "1", "--batch", "1", "--html", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2] == "report"
    assert re.fullmatch(rf"  '{re.escape(str(out))}'  [\d.]+ kB", done.stdout.splitlines()[-1])
    assert "Pass." in Page(out.read_text("utf-8")).text


def test_the_command_writes_it_when_it_fails(copy, tmp_path):  # noqa: F811
    change_onnx(copy, nan_weight)
    out = tmp_path / "report.html"
    done = subprocess.run(
        [sys.executable, "-c", "from tome_export.cli import main; main()", "verify", str(copy.path)]
        + ["--against", "paddle", "--samples", "1", "--batch", "1", "--html", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "onnx against paddle: block 1, mlp: " in done.stderr
    assert str(out) in done.stdout.splitlines()[-1]
    assert "Fail." in Page(out.read_text("utf-8")).text
