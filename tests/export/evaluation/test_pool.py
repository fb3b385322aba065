"""Pictures ahead of the model: right, in order, never too many, and no worker outlives its use."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.export.evaluation.conftest import ROOT, children
from tome_export.errors import RequestError, WorkerError
from tome_export.evaluation.pool import open_supply
from tome_export.evaluation.slots import TAKEN
from tome_export.preprocess import preset

RECIPES = [preset("vit", 32), preset("paddleclas", 48)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, pictures):
    """(folder, paths, numbers of the pictures in them or None): readable and broken ones in every mixture."""
    folder = tmp_path_factory.mktemp("mixed")
    paths, numbers = [], []
    rng = np.random.default_rng(1)
    for i in range(90):
        broken = rng.random() < (0.05 if i < 40 else 0.95 if i < 65 else 0.5)
        paths.append(f"{i}.jpg")
        numbers.append(None if broken else i % len(pictures))
        if broken:
            (folder / paths[-1]).write_bytes(b"not a picture")
        else:
            pictures[i % len(pictures)].save(folder / paths[-1], "PNG")
    return folder, paths, numbers


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (4, 2), (7, 3), (64, 2), (4, 0), (200, 1)])
def test_batches_hold_the_right_pictures_in_order(mixed, pictures, batch, workers):
    folder, paths, numbers = mixed
    expected = [recipe.apply(pictures) for recipe in RECIPES]
    done, sizes = [], []
    with open_supply(folder, paths, RECIPES, batch=batch, workers=workers) as supply:
        while (got := supply.next()) is not None:
            sizes.append(len(got.good))
            for images, prepared in zip(got.images, expected, strict=True):
                assert images.dtype == np.float32 and len(images) == len(got.good)
                for image, position in zip(images, got.good, strict=True):
                    np.testing.assert_array_equal(image, prepared[numbers[position]])
            positions = sorted([*got.good, *(position for position, _ in got.bad)])
            assert positions == list(range(len(done), len(done) + len(positions)))
            for position, reason in got.bad:
                assert numbers[position] is None and reason.startswith("not an image in a known format")
            done += positions
        assert supply.next() is None
        assert supply.waited > 0
    assert len(done) == len(paths)
    assert max(sizes) == min(batch, sum(number is not None for number in numbers))


def test_the_pictures_of_a_batch_lie_side_by_side_and_are_not_copied(tmp_path, pictures):
    paths = []
    for i, picture in enumerate(pictures):
        paths.append(f"{i}.png")
        picture.save(tmp_path / paths[-1])
    with open_supply(tmp_path, paths, RECIPES, batch=4, workers=2) as supply:
        shared = 0
        while (got := supply.next()) is not None:
            shared += sum(not images.flags.owndata for images in got.images)
        assert shared == 2 * 6  # 21 pictures are six batches


def test_odd_names_and_paths_that_no_system_opens(tmp_path, pictures):
    names = ["ümlaut é.png", "tab\tand\nline.png", os.fsdecode(b"latin-\xe9.png"), "a b/c d.png"]
    (tmp_path / "a b").mkdir()
    for name in names:
        pictures[0].save(tmp_path / name)
    long = ["x" * 300, "y/" * 5000]
    with open_supply(tmp_path, [*names, *long], RECIPES[:1], batch=9, workers=1) as supply:
        got = supply.next()
    assert got.good == (0, 1, 2, 3) and [position for position, _ in got.bad] == [4, 5]
    assert "too long" in got.bad[1][1]


def test_a_killed_worker_is_one_line(tmp_path, pictures):
    pictures[0].save(tmp_path / "a.png")
    with open_supply(tmp_path, ["a.png"] * 5000, RECIPES[:1], batch=8, workers=2) as supply:
        assert supply.next() is not None
        victim = supply._processes[0]
        victim.kill()
        with pytest.raises(WorkerError, match=r"^a worker process was killed \(SIGKILL\)") as caught:
            while supply.next() is not None:
                pass
        assert "\n" not in str(caught.value)
        pids = [process.pid for process in supply._processes]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_the_picture_that_a_worker_died_of_is_named(tmp_path, pictures):
    pictures[0].save(tmp_path / "a.png")
    Image.new("RGB", (7000, 7000)).save(tmp_path / "large.png")  # takes it most of a second
    paths = ["a.png", "large.png", "a.png"]
    with open_supply(tmp_path, paths, RECIPES[:1], batch=3, workers=1) as supply:
        while supply._slots.read_note(1)[0] != TAKEN:
            time.sleep(0.001)
        supply._processes[0].kill()
        with pytest.raises(WorkerError, match="while reading large.png; if memory ran out"):
            supply.next()


def test_workers_that_cannot_start_are_an_error_and_not_a_wait(tmp_path, monkeypatch):
    from tome_export.evaluation import pool

    monkeypatch.setattr(pool, "command", lambda *_: [sys.executable, "-c", "import sys; sys.exit(3)"])
    with (
        pytest.raises(WorkerError, match="a worker process ended with status 3"),
        open_supply(tmp_path, ["a.png"], RECIPES[:1], batch=1, workers=2) as supply,
    ):
        supply.next()
    monkeypatch.setattr(pool, "command", lambda *_: [str(tmp_path / "nothing")])
    with pytest.raises(WorkerError, match=r"could not be started \(No such file"):
        open_supply(tmp_path, ["a.png"], RECIPES[:1], batch=1, workers=2)


def test_stopping_while_waiting(tmp_path):
    asked = []

    def stopped():
        asked.append(1)
        return len(asked) > 3

    with open_supply(tmp_path, ["a.png"], RECIPES[:1], batch=1, workers=1, stopped=stopped) as supply:
        supply._processes[0].send_signal(signal.SIGSTOP)  # a picture that takes for ever
        assert supply.next() is None


def wait_until_ignored(pid, number):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (mask,) = (
            line.split()[1]
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("SigIgn:")
        )
        if int(mask, 16) >> (number - 1) & 1:
            return
        time.sleep(0.01)
    raise AssertionError("the worker never started")


def test_workers_ignore_the_signals_meant_for_the_evaluation(tmp_path, pictures):
    pictures[0].save(tmp_path / "a.png")
    with open_supply(tmp_path, ["a.png"] * 100, RECIPES[:1], batch=8, workers=2) as supply:
        assert supply.next() is not None  # they have started
        for process in supply._processes:
            wait_until_ignored(process.pid, signal.SIGHUP)  # which a worker does last, once it has started
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                process.send_signal(number)
        count = 8
        while (got := supply.next()) is not None:
            count += len(got.good)
        assert count == 100 and all(process.poll() is None for process in supply._processes)


_PARENT = """
import sys, time
from pathlib import Path
from tome_export.evaluation.pool import open_supply
from tome_export.preprocess import preset
supply = open_supply(Path(sys.argv[1]), ["a.png"] * 1000, [preset("vit", 32)], batch=4, workers=2)
supply.next()
print("ready", flush=True)
time.sleep(600)
"""


def test_workers_end_with_a_killed_parent_and_hold_no_engine(tmp_path, pictures):
    pictures[0].save(tmp_path / "a.png")
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout.readline() == b"ready\n"
    workers = children(parent.pid)
    assert len(workers) == 2
    for pid in workers:
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "PIL" in mapped and "paddle" not in mapped and "onnxruntime" not in mapped
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() and _alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.stdout.close()


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(batch=0, workers=1), "batch should be from 1 to 4096, not 0"),
        (dict(batch=5000, workers=1), "batch should be from 1 to 4096, not 5000"),
        (dict(batch=1, workers=-1), "from 0 to 256 workers, not -1"),
        (dict(batch=1, workers=1000), "from 0 to 256 workers, not 1000"),
    ],
)
def test_numbers_out_of_range(tmp_path, asked, said):
    with pytest.raises(RequestError, match=said):
        open_supply(tmp_path, ["a.png"], RECIPES, **asked)
