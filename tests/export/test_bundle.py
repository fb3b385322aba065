"""Bundles on disk: whole or absent, and nothing of anybody else's is ever lost."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.export.conftest import ROOT
from tests.export.tiny import make_manifest
from tome_export import staging
from tome_export.bundle import Bundle, BundleWriter
from tome_export.errors import BundleError
from tome_export.manifest import Artifact

CONTENT = b"model bytes"


def write(out, force=False, content=CONTENT):
    with BundleWriter(out, force=force) as writer:
        (writer.folder / "variants").mkdir()
        (writer.folder / "variants" / "model.onnx").write_bytes(content)
        artifact = Artifact("onnx", "fp32", {"variants/model.onnx": ""}, 17)
        return writer.commit(make_manifest(artifacts=(artifact,)))


def model_in(out):
    return (Path(out) / "variants" / "model.onnx").read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_is_read_back(tmp_path):
    written = write(tmp_path / "out")
    opened = Bundle.open(str(tmp_path / "out"))
    assert opened == written
    assert opened.file_sizes() == {"variants/model.onnx": len(CONTENT)}
    command = ["sha256sum", tmp_path / "out/variants/model.onnx"]
    digest = subprocess.run(command, capture_output=True, text=True).stdout.split()[0]
    assert opened.artifact("onnx").files == {"variants/model.onnx": digest}
    assert opened.file(opened.artifact("onnx"), ".onnx").read_bytes() == CONTENT
    opened.verify_hashes()
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["manifest.json", "variants"]


def test_nothing_is_in_place_before_the_commit(tmp_path):
    with BundleWriter(tmp_path / "out") as writer:
        assert writer.folder.parent == tmp_path and writer.folder.name.startswith(".")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == []  # no commit, no trace


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path, error):
    with pytest.raises(error), BundleWriter(tmp_path / "a" / "b" / "out") as writer:
        (writer.folder / "half").write_text("x")
        raise error
    assert names(tmp_path) == []  # nor the parents made for it


def test_a_listed_file_that_was_not_written(tmp_path):
    with pytest.raises(BundleError, match="model.onnx"), BundleWriter(tmp_path / "out") as writer:
        writer.commit(make_manifest(artifacts=(Artifact("onnx", "fp32", {"model.onnx": ""}),)))
    assert names(tmp_path) == []


def test_an_existing_bundle_needs_force(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(BundleError, match="already exists; add --force"):
        BundleWriter(tmp_path / "out")
    write(tmp_path / "out", force=True, content=b"newer")
    assert model_in(tmp_path / "out") == b"newer" and names(tmp_path) == ["out"]


def test_the_old_bundle_stays_until_the_new_one_is_ready(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(ValueError), BundleWriter(tmp_path / "out", force=True):
        Bundle.open(tmp_path / "out").verify_hashes()
        raise ValueError
    Bundle.open(tmp_path / "out").verify_hashes()
    assert model_in(tmp_path / "out") == CONTENT and names(tmp_path) == ["out"]


def test_the_old_bundle_comes_back_if_the_swap_fails(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        staging.swap_in(tmp_path / "vanished", tmp_path / "out")
    Bundle.open(tmp_path / "out").verify_hashes()
    assert names(tmp_path) == ["out"]


def test_what_is_not_a_bundle_is_never_replaced(tmp_path):
    stranger = tmp_path / "project"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("years of work")
    web_app = tmp_path / "web"
    web_app.mkdir()
    (web_app / "manifest.json").write_text('{"name": "a web app", "version": 1}')
    damaged = tmp_path / "damaged"
    write(damaged)
    (damaged / "manifest.json").write_text((damaged / "manifest.json").read_text()[:100])
    file = tmp_path / "file"
    file.write_text("x")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in (stranger, web_app, damaged):
        with pytest.raises(BundleError, match="is not an exported bundle, so --force does not replace it"):
            BundleWriter(out, force=True)
    for force in (False, True):
        with pytest.raises(BundleError, match="is a file"):
            BundleWriter(file, force=force)
        with pytest.raises(BundleError, match="cannot"), BundleWriter(file / "out", force=force):
            pass
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_bundle_of_a_later_version_may_be_replaced(tmp_path):
    write(tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(BundleError, match="upgrade tome-export"):
        Bundle.open(tmp_path / "out")
    write(tmp_path / "out", force=True)
    Bundle.open(tmp_path / "out").verify_hashes()


def test_an_empty_folder_needs_force(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match="already exists"):
        BundleWriter(tmp_path / "out")
    write(tmp_path / "out", force=True)
    assert names(tmp_path) == ["out"]


def test_a_destination_taken_meanwhile_is_kept(tmp_path):
    with pytest.raises(BundleError, match="already exists"), BundleWriter(tmp_path / "out") as writer:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("x")
        writer.commit(make_manifest(artifacts=()))
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["theirs"]


def test_ways_to_write_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in ("plain", "trailing/", "./dotted", "deep/er/out", "deep/../sideways", "sp ace ü"):
        write(out)
        Bundle.open(out).verify_hashes()
    assert names(tmp_path) == ["deep", "dotted", "plain", "sideways", "sp ace ü", "trailing"]
    (tmp_path / "deep" / "er" / "link").symlink_to(tmp_path / "plain")
    write("deep/er/link", force=True, content=b"through the link")
    assert model_in("plain") == b"through the link" and (tmp_path / "deep" / "er" / "link").is_symlink()
    (tmp_path / "dangling").symlink_to(tmp_path / "target")
    write("dangling")
    assert model_in("target") == CONTENT


def test_places_no_bundle_can_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for out in ("", "/", "loop", "nul\0byte", "x" * 300, "/proc/nowhere/out"):
        with pytest.raises(BundleError) as caught, BundleWriter(out, force=True):
            pass
        assert "\n" not in str(caught.value), out
    with pytest.raises(BundleError, match="already exists"):
        BundleWriter(".")
    (tmp_path / "loop").unlink()
    with pytest.raises(BundleError, match="is the current folder or holds it"):
        BundleWriter(".", force=True)
    with pytest.raises(BundleError, match="mount point|not an exported bundle"):
        BundleWriter("/proc", force=True)


def test_a_long_name_still_fits(tmp_path):
    write(tmp_path / ("x" * 250))
    Bundle.open(tmp_path / ("x" * 250)).verify_hashes()


def test_a_parent_that_cannot_be_written(child):
    code = """
import os, sys
from tome_export import staging
from tome_export.bundle import BundleWriter
from tome_export.errors import BundleError
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with BundleWriter(sys.argv[1]):
        pass
except BundleError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to the child's user
        Path(folder).chmod(0o755)
        (Path(folder) / "locked").mkdir(mode=0o555)
        done = child(code, f"{folder}/locked/out")
    assert "cannot write to" in done.stdout and "Permission denied" in done.stdout, done.stderr


KILLED = """
import os, sys, time
from tome_export import staging
from tome_export.bundle import BundleWriter
with BundleWriter(sys.argv[1], force=True) as writer:
    (writer.folder / "half").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writing(tmp_path):
    """A process in the middle of an export to tmp_path/out."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "out")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_leaves_nothing(tmp_path, writing, number, status):
    write_before = names(tmp_path)
    assert len(write_before) == 1 and write_before[0].startswith(".out.")
    writing.send_signal(number)
    assert writing.wait(10) == status
    assert names(tmp_path) == []


def test_a_killed_export_leaves_nothing_that_looks_finished(tmp_path, writing):
    writing.kill()
    writing.wait(10)
    left = names(tmp_path)
    assert len(left) == 1 and left[0].startswith(".out.")
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / "out")
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / left[0])
    write(tmp_path / "other")
    assert left[0] in names(tmp_path)  # another name's leftovers are not ours
    write(tmp_path / "out")
    assert names(tmp_path) == ["other", "out"]


def test_a_live_export_is_left_alone(tmp_path, writing):
    (running,) = names(tmp_path)
    os.utime(tmp_path / running, (1, 1))  # old, but its lock is held
    with BundleWriter(tmp_path / "out"):
        assert (tmp_path / running / "half").exists()
        with BundleWriter(tmp_path / "out"):
            assert len(names(tmp_path)) == 3
    assert names(tmp_path) == [running]


def test_leftovers_of_a_process_number_in_use_again(tmp_path, writing):
    writing.kill()
    writing.wait(10)
    (left,) = names(tmp_path)
    head, _, token = left.rpartition("-")
    renamed = tmp_path / f"{head.rpartition('-')[0]}-{os.getpid()}-{token}"
    (tmp_path / left).rename(renamed)
    with BundleWriter(tmp_path / "out"):
        assert renamed.exists()  # young and its number is alive: it may be about to be locked
    os.utime(renamed, (time.time() - 3600,) * 2)
    with BundleWriter(tmp_path / "out"):
        assert not renamed.exists()


def test_a_bundle_set_aside_by_a_killed_export_comes_back(tmp_path, writing):
    writing.kill()
    writing.wait(10)
    (left,) = names(tmp_path)
    write(tmp_path / "old")
    shutil.rmtree(tmp_path / left)
    (tmp_path / "old").rename(tmp_path / left.replace("partial", "replaced"))
    with pytest.raises(BundleError, match="already exists"), BundleWriter(tmp_path / "out"):
        pass
    Bundle.open(tmp_path / "out").verify_hashes()
    assert names(tmp_path) == ["out"]


def test_signal_handlers_are_put_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    write(tmp_path / "out")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def test_opening_what_is_no_bundle(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "manifest.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder" / "manifest.json").mkdir(parents=True)
    told = {
        "absent": "no such bundle folder",
        "file": "is a file",
        "empty": "has no manifest.json",
        "binary": "not UTF-8",
        "folder": "cannot be read",
        "nul\0": "no such",
    }
    for name, text in told.items():
        with pytest.raises(BundleError, match=text) as caught:
            Bundle.open(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_verification_names_every_file_at_fault(tmp_path):
    with BundleWriter(tmp_path / "out") as writer:
        for name in ("a.json", "b.pdiparams", "c.onnx"):
            (writer.folder / name).write_text(name)
        bundle = writer.commit(
            make_manifest(
                artifacts=(
                    Artifact("paddle", "fp32", {"a.json": "", "b.pdiparams": ""}),
                    Artifact("onnx", "fp32", {"c.onnx": ""}),
                )
            )
        )
    (bundle.path / "a.json").write_text("A.json")
    (bundle.path / "b.pdiparams").unlink()
    with pytest.raises(BundleError, match="a.json changed, b.pdiparams missing; export it again"):
        bundle.verify_hashes()
    with pytest.raises(BundleError, match="b.pdiparams"):
        bundle.file_sizes()
    with pytest.raises(BundleError, match="holds no onnx model in int8; it holds paddle fp32, onnx fp32"):
        bundle.artifact("onnx", "int8")
