"""The whole of it on a small real model and parts of real photographs. No speed is asserted."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace

import paddle
import pytest

from tests.export import small
from tome_core.schedule import make_schedule
from tome_export.commands.tune import export_line
from tome_export.errors import RequestError
from tome_export.evaluation.interrupt import Interrupt
from tome_export.quiet import quiet
from tome_export.runtimes import probe
from tome_export.steps import Steps
from tome_export.tune import tune
from tome_export.tuning import measure
from tome_export.tuning.costs import Point, Setting, fit_costs, probes
from tome_export.tuning.report import as_text, schedule_option

SETTING = Setting(
    "small_vit", small.DEPTH, 65, 1, 48, 192, "onnx", probe("onnx").version, "fp32", "cpu", 2, 4
)


def made_up(setting):
    """Costs of a machine that only counts tokens."""
    count = lambda schedule: sum(schedule.tokens[1:]) / (setting.depth * setting.tokens)  # noqa: E731
    return fit_costs(setting, 10.0, [Point(each.r, count(each), 0.005) for each in probes(setting.frame)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, details):
    """Sixty-three real pictures in class folders, and a broken one."""
    root = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(details):
        for turn in range(3):
            path = root / str(number % small.CLASSES) / f"{number}-{turn}.png"
            path.parent.mkdir(exist_ok=True)
            picture.convert("RGB").resize((80, 80)).rotate(90 * turn).save(path)
    (root / "0" / "broken.jpg").write_bytes(b"no picture")
    return root


def run(folder, **options):
    defaults = {"costs": made_up(SETTING), "check_speed": False, "threads": 2, "batch": 4, "minutes": 0.5}
    with quiet():
        return tune(small.build("small_vit", 7), folder, **{**defaults, **options})


def check(found, speedup=None):
    """What holds for every result."""
    names = [each.name for each in found.candidates]
    # One that never is as fast is left out.
    assert names == [each for each in ("found", "constant", "decreasing") if each in names]
    assert speedup is None or len(names) == 3
    assert (found.searched, found.held_out, found.unreadable) == (32, 31, 1)
    for each in found.candidates:
        assert each.tokens == make_schedule(list(each.r), small.DEPTH, 65).tokens
        if speedup is not None:
            assert speedup <= each.predicted <= speedup * 1.06
    if speedup is not None:
        own, *others = found.candidates
        assert own.searched.loss <= min(each.searched.loss for each in others)
    kept = found.best.held_out
    assert not any(
        each.held_out.share > kept.share and each.held_out.loss < kept.loss for each in found.candidates
    )
    text = as_text(found)
    assert all(" ".join(f"{r:>2}" for r in each.r).strip() in text for each in found.candidates)
    assert json.loads(found.to_json())["chosen"] == found.chosen


def test_the_best_agreement_at_a_speed(folder):
    found = run(folder, speedup=1.5)
    check(found, 1.5)
    assert found.measure == "agreement" and found.base is None and not found.interrupted


def test_the_same_seed_finds_the_same(folder):
    first, second = (run(folder, speedup=1.4, limit=20, seed=5, minutes=2) for _ in range(2))
    assert first.complete and first.candidates == second.candidates and first.tried == second.tried


def test_the_fastest_at_an_agreement(folder):
    found = run(folder, min_agreement=0.9)
    check(found)
    own, *others = found.candidates
    assert own.searched.share >= 0.9 and own.predicted > 1
    assert own.predicted >= max(found.reached.values()) - 1e-9 or own.held_out.share >= 0.9


def test_labels_give_accuracy(folder):
    found = run(folder, speedup=1.3, labels="folders")
    check(found, 1.3)
    assert found.measure == "accuracy" and all(0 <= each <= 1 for each in found.base)
    assert "accuracy on 32 searched and 31 held-out pictures" in as_text(found)


def test_an_interruption_gives_the_best_so_far_and_the_model_its_r(folder):
    class Asked(Interrupt):
        def __enter__(self):
            self.asked = True
            return self

    model = small.build("small_vit", 7)
    with quiet():
        found = tune(
            model, folder, speedup=1.5, costs=made_up(SETTING), threads=2, batch=4, check_speed=False,
            interrupt=Asked(),
        )  # fmt: skip
    check(found, 1.5)
    assert found.interrupted and not found.complete and found.tried < 5
    assert model.r == 7


def test_speed_is_measured_where_it_counts(folder, tmp_path, monkeypatch):
    """On Paddle Inference, which needs no conversion; the costs are kept, and read the next time."""
    monkeypatch.setattr(measure, "SECONDS", 0.2)
    monkeypatch.setattr(measure, "probes", lambda frame: probes(frame)[::2])
    file, steps = tmp_path / "costs.json", Steps()
    options = {
        "runtime": "paddle",
        "costs": file,
        "threads": 1,
        "batch": 2,
        "min_agreement": 0.2,
        "minutes": 0.01,
        "steps": steps,
    }
    try:
        found = run(folder, **options, check_speed=True)
    except RequestError as error:  # a model this small may not get faster at all
        assert "ask for less" in str(error)
    else:
        assert all(0 < each.measured.low <= each.measured.high for each in found.candidates)
    assert steps.seconds["costs"] > 0
    before = file.read_bytes()
    with pytest.raises(RequestError, match="was measured with batch = 2, and now it is 3"):
        run(folder, **{**options, "batch": 3})
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"speedup": 50.0}, "out of reach: merging makes this model at most"),
        ({"speedup": 1.5, "limit": 3}, "--limit should be at least 16"),
        ({"speedup": 1.5, "runtime": "tflite"}, "no runtime 'tflite'"),
        ({"speedup": 1.5, "precision": "int8"}, "measured in fp32, not int8"),
        ({"speedup": 1.5, "minutes": 0.0}, "above 0 minutes"),
        ({"speedup": 1.5, "labels": "nowhere.txt"}, "nowhere.txt: cannot be read"),
        ({"speedup": 1.5, "batch": 0}, "at least one image"),
    ],
)
def test_mistakes(folder, asked, told):
    with pytest.raises(RequestError, match="^[^\n]*$") as caught:
        run(folder, **asked)
    assert told in str(caught.value)


def test_too_few_pictures(tmp_path, details):
    for number in range(3):
        details[number].convert("RGB").save(tmp_path / f"{number}.png")
    with pytest.raises(RequestError, match="3 of 3 pictures can be read, and tune needs 16"):
        run(tmp_path, speedup=1.5)


# ---------------------------------------------------------------- the command

_MAIN = """
import sys
from tests.export import small
from tome_export.cli import main
with small.registered():
    main()
"""


def start(cwd, *arguments):
    env = os.environ | {"PYTHONPATH": str(small.ROOT), "OMP_NUM_THREADS": "2"}
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, "tune", *map(str, arguments)],
        cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, folder):
    root = tmp_path_factory.mktemp("place")
    model = small.build("small_vit", 0)
    paddle.save(model.state_dict(), str(root / "w.pdparams"))
    (root / "photos").symlink_to(folder)
    (root / "costs.json").write_text(made_up(SETTING).to_json())
    return root


COMMON = ("--model", "small_vit", "--weights", "w.pdparams", "--images", "photos", "--threads", 2)
KNOWN = (*COMMON, "--batch", 4, "--costs", "costs.json", "--no-check-speed")


def test_the_command_and_the_next_one(place):
    process = start(place, *KNOWN, "--speedup", 1.5, "--minutes", 0.05, "--json", "found.json")
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, ""), stderr
    found = json.loads((place / "found.json").read_text())
    best = next(each for each in found["candidates"] if each["name"] == found["chosen"])
    assert "agreement with r = 0 on 32 searched and 31 held-out pictures" in stdout
    words = shlex.split(stdout.split("\nnext\n")[1])
    assert words[:5] == ["tome-export", "--model", "small_vit", "--weights", "w.pdparams"]
    r = [int(each) for each in words[words.index("--r") + 1].split(",")]
    assert make_schedule(r, small.DEPTH, 65).r == tuple(best["r"])


def test_ctrl_c_ends_the_search_with_what_there_is(place):
    process = start(place, *KNOWN, "--speedup", 1.5, "--minutes", 5)
    for line in process.stdout:  # the search is next, and takes seconds
        if "read the pictures" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    (line,) = stderr.splitlines()
    assert line.startswith("error: interrupted")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*COMMON,), "ask for a speed-up or for an agreement"),
        ((*KNOWN, "--speedup", 2, "--json", "no/where.json"), "there is no folder no"),
        ((*COMMON, "--speedup", 2, "--costs", "w.pdparams"), "not a file of costs"),
    ],
)
def test_mistakes_in_the_command(place, arguments, told):
    process = start(place, *arguments)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    (line,) = stderr.splitlines()
    assert line.startswith("error: ") and told in line


def test_lists_as_the_export_takes_them():
    for r in [(0, 0, 0), (5, 0, 0, 0), (3, 0, 2, 0), (4,), (1, 2, 3)]:
        text = schedule_option(r)
        values = [int(each) for each in text.split(",")]
        asked = values if "," in text else values[0]
        assert make_schedule(asked, len(r), 65).r == r
    options = {"weights": "my w.npz", "image_size": 64, "prop_attn": False, "preprocess": None}
    assert shlex.split(export_line("m", "3,0", options)) == [
        "tome-export", "--model", "m", "--weights", "my w.npz", "--image-size", "64", "--no-prop-attn",
        "--r", "3,0", "--out", "./infer",
    ]  # fmt: skip


@pytest.mark.slow
def test_on_onnx_runtime_with_nothing_known(folder):
    found = run(folder, speedup=1.01, costs=None, check_speed=True, batch=16)
    assert all(each.measured is not None for each in found.candidates)
    assert replace(found.costs, points=()).error < 1
