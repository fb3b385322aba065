"""`tome-export eval` as its user meets it: real processes, signals, files."""

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.export.evaluation.conftest import children, run, start


@pytest.fixture
def place(tmp_path, bundle, other, labelled, many):
    for name, path in {"r8": bundle.path, "other": other.path, "val": labelled, "many.txt": many}.items():
        (tmp_path / name).symlink_to(path)
    return tmp_path


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


TEXT = r"""small_vit at 64 px, 65 -> 25 tokens, .*

                      r8
  runtime             onnx \d+\.\d+\.\d+, fp32, cpu
  top-1               61\.90 %
    95 % confidence   40\.88 to 79\.25 %
  top-5               85\.71 %
  speed of the model  \d+\.\d images/s

  images                    21 of 21
  classes                   by class number
  speed of everything       \d+\.\d images/s
  model waiting for images  \d+\.\d %
"""


def test_what_it_prints_and_writes(place, ranks):
    options = ["--runtime", "onnx", "--workers", "1", "--batch", "8", "--predictions", "out.csv"]
    done = run(["eval", "r8", "--data", "val", *options], place)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(TEXT, done.stdout), done.stdout
    assert sorted(path.name for path in place.iterdir()) == ["many.txt", "other", "out.csv", "r8", "val"]
    rows = rows_of(place / "out.csv")
    assert len(rows) == 21 and sum(int(row["correct"]) for row in rows) == 13
    for row in rows:
        number = int(Path(row["path"]).stem.split()[-1])
        assert row["label"] == row["path"].split("/")[0] and row["error"] == ""
        assert [int(row[f"top{k}"]) for k in range(1, 6)] == ranks[number, :5].tolist()
        values = [float(row[f"probability{k}"]) for k in range(1, 6)]
        assert values == sorted(values, reverse=True) and 0 < sum(values) <= 1.00001


def test_json_and_unreadable_pictures(place, labelled):
    lines = [f"absent {i}.jpg 3" for i in range(7)]
    lines += [f"{path.relative_to(labelled)} {path.parent.name}" for path in sorted(labelled.glob("*/*.png"))]
    (place / "list.txt").write_text("\n".join(lines))
    shared = ["eval", "r8", "--data", "val", "--labels", "list.txt", "--workers", "1"]
    done = run([*shared, "--json", "--predictions", "out.csv"], place)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["images"], found["evaluated"], found["interrupted"]) == (28, 21, False)
    assert found["unreadable"] == [{"path": f"absent {i}.jpg", "error": "no such file"} for i in range(7)]
    (score,) = found["scores"]
    assert (score["top1"], score["top5"], score["runtime"]) == (13 / 21, 18 / 21, "paddle")
    rows = rows_of(place / "out.csv")
    assert len(rows) == 28 and [row["error"] for row in rows[:7]] == ["no such file"] * 7
    assert rows[0]["top1"] == rows[0]["correct"] == "" and rows[7]["error"] == ""

    done = run(shared, place)
    assert "  images                    21 of 28, 7 could not be read\n" in done.stdout
    assert done.stdout.endswith(
        "\ncould not be read\n"
        + "".join(f"  absent {i}.jpg: no such file\n" for i in range(5))
        + "  and 2 more; --json and --predictions name them all\n"
    )


def test_compare(place):
    done = run(
        ["eval", "r8", "--data", "val", "--runtime", "onnx", "--compare", "other", "--predictions", "o.csv"],
        place,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ +r8 +other$", done.stdout, re.MULTILINE)
    rows = rows_of(place / "o.csv")
    right, second = ([int(row[name]) for row in rows] for name in ("correct", "second_correct"))
    assert sum(right) == 13
    assert f"  top-1               61.90 %                 {sum(second) / 21:.2%}"[:-1] in done.stdout
    same = sum(row["top1"] == row["second_top1"] for row in rows)
    assert re.search(rf"same answer +{100 * same / 21:.2f} %", done.stdout)
    pairs = list(zip(right, second, strict=True))
    only = pairs.count((1, 0)), pairs.count((0, 1))
    assert re.search(rf"only first, only second +{only[0]}, {only[1]}\n", done.stdout)
    assert re.search(r"McNemar's exact test +p = [\d.e-]+, ", done.stdout)


def in_progress(process, csv_file):
    """Wait until some batches are written."""
    wait_until(lambda: csv_file.exists() and csv_file.stat().st_size > 5000, process)


def wait_until(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


LONG = ["eval", "r8", "--data", "val", "--labels", "many.txt", "--workers", "2", "--predictions", "out.csv"]


@pytest.mark.parametrize("runtime", ["onnx", "paddle"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_interrupted_it_reports_what_it_has(place, runtime, number):
    process = start([*LONG, "--json", "--runtime", runtime], place, start_new_session=True)
    in_progress(process, place / "out.csv.partial")
    os.killpg(process.pid, number)  # the workers too, as Ctrl-C on a terminal does
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    found = json.loads(stdout)
    assert found["interrupted"] and found["images"] == 210_000 and found["unreadable"] == []
    assert stderr == f"error: interrupted after {found['evaluated']} of 210000 images\n"
    rows = rows_of(place / "out.csv")
    assert len(rows) == found["evaluated"] > 0 and not (place / "out.csv.partial").exists()
    right = sum(int(row["correct"]) for row in rows)
    assert found["scores"][0]["top1"] == right / len(rows)


SECOND = """
import signal
from tome_export.evaluation.interrupt import Interrupt
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
with Interrupt() as interrupt:
    assert not interrupt.asked
    signal.raise_signal(signal.SIGTERM)
    assert interrupt.asked
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        print(error)
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
"""


def test_a_second_signal_does_not_wait_for_the_report(child):
    """In a process of its own, since engines in this one may have taken the signals for themselves."""
    done = child(SECOND)
    assert (done.returncode, done.stderr) == (0, "") and "interrupted twice" in done.stdout


def test_a_killed_worker_ends_it_in_one_line(place):
    process = start([*LONG, "--runtime", "onnx"], place)
    in_progress(process, place / "out.csv.partial")
    os.kill(children(process.pid)[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert re.fullmatch(r"error: a worker process was killed \(SIGKILL\).*; if memory ran out, .*\n", stderr)
    assert len(rows_of(place / "out.csv")) > 0


def test_killed_itself_it_leaves_the_rows_and_no_workers(place):
    process = start([*LONG, "--runtime", "onnx"], place)
    in_progress(process, place / "out.csv.partial")
    workers = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    assert len(workers) == 2 and not (place / "out.csv").exists()
    whole = (place / "out.csv.partial").read_text().rpartition("\n")[0].splitlines()
    assert len(whole) > 20 and all(line.count(",") == 13 for line in whole)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_terminal_sees_a_bar_that_goes_away(place):
    from tests.export.test_cli import on_a_terminal

    arguments = ["eval", "r8", "--data", "val", "--runtime", "onnx", "--batch", "2", "--workers", "1"]
    status, written = on_a_terminal(arguments, place, lambda: None)
    assert status == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n")
    assert re.search(r"  evaluate .*\d+/21 .*left", plain)
    assert re.search(r"^  top-1 +61\.90 %", plain, re.MULTILINE)
    assert "\x1b[2K" in written  # the bar's line is cleared


BAD = {
    "no-data": (["eval", "r8"], "'--data'"),
    "no-bundle": (["eval", "nowhere", "--data", "val"], "nowhere: no such bundle"),
    "no-folder": (["eval", "r8", "--data", "nowhere"], "nowhere: no such folder"),
    "no-list": (["eval", "r8", "--data", "val", "--labels", "none"], "none: cannot be read as a list"),
    "classes": (["eval", "r8", "--data", "strangers"], "'x' is not a class number from 0 to 10"),
    "runtime": (["eval", "r8", "--data", "val", "--runtime", "tvm"], "no runtime 'tvm'"),
    "precision": (["eval", "r8", "--data", "val", "--precision", "int8"], "no paddle model in int8"),
    "device": (["eval", "r8", "--data", "val", "--device", "tpu"], "no device 'tpu'"),
    "threads": (["eval", "r8", "--data", "val", "--threads", "0"], "threads should be at least 1"),
    "batch": (["eval", "r8", "--data", "val", "--batch", "0"], "batch should be from 1"),
    "workers": (["eval", "r8", "--data", "val", "--workers", "-1"], "workers, not -1"),
    "limit": (["eval", "r8", "--data", "val", "--limit", "0"], "--limit should be at least 1"),
    "compare": (["eval", "r8", "--data", "val", "--compare", "nowhere"], "nowhere: no such bundle"),
    "compare-what": (["eval", "r8", "--data", "val", "--compare-runtime", "onnx"], "go with --compare"),
    "csv-folder": (["eval", "r8", "--data", "val", "--predictions", "val"], "val: is a folder"),
    "csv-nowhere": (["eval", "r8", "--data", "val", "--predictions", "no/o.csv"], "no/o.csv: cannot be "),
}  # fmt: skip


def test_bad_requests_get_one_line_and_leave_nothing(place):
    from tests.export.test_cli import one_line, run_forked

    (place / "strangers" / "x").mkdir(parents=True)
    before = sorted(place.iterdir())
    for name, done in run_forked({name: (command, place) for name, (command, _) in BAD.items()}).items():
        line = one_line(done)
        assert BAD[name][1] in line, line
        assert done.returncode == 2 and done.stdout == "" and len(line) < 400, name
    assert sorted(place.iterdir()) == before
