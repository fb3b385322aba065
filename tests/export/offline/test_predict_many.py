"""`tome-export predict-many` as its user meets it: killed, refused, gone on with, compared with `predict`."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.export.evaluation.conftest import run, start
from tome_export.predict import predict_files

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("ray.data")

COMMAND = ["predict-many", "r8", "photos", "out.parquet", "--runtime", "onnx"]
SMALL = ["--batch", "4", "--shard", "10", "--workers", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_bundles, details, fill):
    """A folder with the bundle, and 213 files in 22 shards of ten, three of them broken."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "r8").symlink_to(small_bundles["small_vit", "r8"].path)
    return folder, fill(folder / "photos", details, 10)


@pytest.fixture(scope="module")
def killed(place):
    """The command killed outright after a few shards; returns the parts that were left."""
    folder, _ = place
    process = start([*COMMAND, *SMALL], folder)
    parts = folder / "out.parquet.parts"
    deadline = time.monotonic() + 90
    while len(list(parts.glob("0*.parquet"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    left = sorted(path.name for path in parts.glob("0*.parquet"))
    assert 3 <= len(left) < 22 and not (folder / "out.parquet").exists()
    return left


def test_another_request_over_its_parts_is_refused(place, killed):
    folder, _ = place
    done = run([*COMMAND, *SMALL, "--top", "2"], folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: out.parquet.parts: has the parts of a different request (top 5, now 2); ask for the same, "
        "or drop them with --overwrite\n"
    )
    assert sorted(path.name for path in (folder / "out.parquet.parts").glob("0*.parquet")) == killed


TEXT = r"""  goes on after \d+ of 213 images
(?:  \d+ of 213 images, .* left
)*  model                r8, onnx fp32
  images               213
  of these before      \d+
  could not be read    3
  files ignored        1, by their ending
  speed of everything  \d+\.\d images/s
  time                 \d+\.\d s

errors
  cut\.jpg: cannot be read as an image .*
  part 1/empty\.png: is empty
  part 1/text\.webp: not an image in a known format .*

  out\.parquet  \d+\.\d kB

next
  python -c "import pandas; print\(pandas\.read_parquet\('out\.parquet'\)\)"
"""


@pytest.fixture(scope="module")
def resumed(place, killed):
    """The same command again, to its end; what it printed, and the table."""
    folder, _ = place
    scratch = Path((folder / "out.parquet.parts" / "scratch").read_text())
    assert scratch.is_dir()  # Ray's, left by the kill
    (folder / "photos" / "later.jpg").write_bytes((folder / "photos/part 0/000-00.jpg").read_bytes())
    before = {name: (folder / "out.parquet.parts" / name).stat().st_mtime_ns for name in killed}
    process = start([*COMMAND, *SMALL], folder)
    kept = {}
    while process.poll() is None and len(kept) < len(killed):
        for name in set(killed) - set(kept):
            kept[name] = (folder / "out.parquet.parts" / name).stat().st_mtime_ns
        time.sleep(0.02)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert kept == before  # what was finished is not done again
    assert not scratch.exists()
    return stdout, pq.read_table(folder / "out.parquet").to_pylist()


def test_it_goes_on_and_has_each_image_once(place, resumed):
    folder, reasons = place
    stdout, rows = resumed
    assert re.fullmatch(TEXT, stdout), stdout
    assert [row["path"] for row in rows] == sorted(reasons, key=lambda path: path.split("/"))
    assert sorted(path.name for path in folder.iterdir()) == ["out.parquet", "photos", "r8"]


def test_broken_files_are_rows_with_their_error(place, resumed):
    _, reasons = place
    for row in resumed[1]:
        reason = reasons[row["path"]]
        if not reason:
            assert row["error"] is None
            continue
        assert row["error"].startswith(reason)
        assert all(value is None for name, value in row.items() if name not in ("path", "error"))


def test_the_answers_are_those_of_predict(place, resumed):
    folder, reasons = place
    rows = [row for row in resumed[1] if not reasons[row["path"]]][::9]
    _, predicted = predict_files(folder / "r8", [folder / "photos" / row["path"] for row in rows], "onnx")
    assert len(rows) > 20
    for row, classes in zip(rows, predicted, strict=True):
        assert row["top_indices"] == [each.index for each in classes]
        assert row["top_labels"] == [each.label for each in classes]
        expected = [each.probability for each in classes]
        np.testing.assert_allclose(row["top_probabilities"], expected, rtol=1e-4)
        first = row["class_index"], row["label"], row["probability"]
        assert first == (row["top_indices"][0], row["top_labels"][0], row["top_probabilities"][0])


def test_a_finished_file_is_not_replaced_unasked(place, resumed):
    folder, _ = place
    before = (folder / "out.parquet").read_bytes()
    done = run(COMMAND, folder)
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: out.parquet: already exists; add --overwrite to replace it, or name another file\n"
    )
    assert (folder / "out.parquet").read_bytes() == before
    assert not (folder / "out.parquet.parts").exists()


@pytest.mark.slow
def test_interrupted_it_goes_on_later(place, resumed):
    """Ctrl-C on a terminal reaches Ray's processes too."""
    folder, _ = place
    command = ["predict-many", "r8", "photos", "slow.parquet", *SMALL, "--runtime", "onnx"]
    process = start(command, folder, start_new_session=True)
    parts = folder / "slow.parquet.parts"
    while len(list(parts.glob("0*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    scratch = Path((parts / "scratch").read_text())
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"error: interrupted after \d+ of 214 images; the same command goes on\n", stderr)
    assert parts.is_dir() and not scratch.exists()
    done = run(command, folder)
    assert done.returncode == 0 and pq.read_metadata(folder / "slow.parquet").num_rows == 214
