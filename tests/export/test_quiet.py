"""Chatter is kept from the terminal, whoever makes it, and what we say ourselves gets through.

Descriptors are the process's own, so each case runs in a fresh process.
"""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from tome_export.quiet import quiet

CHATTER = """
import ctypes, logging, os, subprocess, sys, warnings
from tome_export.quiet import quiet

def chat(tag):
    print(tag, "print")
    print(tag, "stderr", file=sys.stderr)
    os.write(1, f"{tag} fd1\\n".encode())
    os.write(2, f"{tag} fd2\\n".encode())
    ctypes.CDLL(None).printf(f"{tag} printf\\n".encode())  # stays in C's buffer until flushed
    warnings.warn(f"{tag} warning")
    logging.getLogger("x").warning(f"{tag} log")
    subprocess.run([sys.executable, "-c", f"print('{tag} child')"])

ALL = ["print", "stderr", "fd1", "fd2", "printf", "warning", "log", "child"]
"""


def test_every_road_to_the_terminal_is_captured(child):
    done = child(
        CHATTER
        + """
print("before")
with quiet() as q:
    chat("in")
    print("shown", file=q.stderr)
    print("result", file=q.stdout)
assert all(f"in {road}" in q.text() for road in ALL), q.text()
print("after")
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["before", "result", "after"]
    assert done.stderr == "shown\n"


def test_debug_lets_everything_through_nested_too(child):
    done = child(
        CHATTER
        + """
with quiet(debug=True), quiet() as q:
    chat("in")
assert q.text() == ""
"""
    )
    assert done.returncode == 0, done.stderr
    assert all(f"in {road}" in done.stdout + done.stderr for road in ALL_ROADS)


ALL_ROADS = ["print", "stderr", "fd1", "fd2", "printf", "warning", "log", "child"]


def test_nested_uses_and_exceptions(child):
    done = child(
        CHATTER
        + """
try:
    with quiet() as outer:
        print("one")
        try:
            with quiet() as inner:
                print("two")
                print("still shown", file=inner.stderr)
                raise KeyError
        except KeyError:
            pass
        print("three")
        raise ValueError
except ValueError:
    print("out", "loud")
assert inner.text() == "two\\n" and outer.text() == "one\\ntwo\\nthree\\n", (inner.text(), outer.text())
with quiet() as again:
    print("four")
assert again.text() == "four\\n"
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "out loud\n", "still shown\n")


@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
def test_closed_descriptors(child, tmp_path, closed):
    code = (
        CHATTER
        + """
with quiet() as q:
    os.write(1, b"fd1 ")
    os.write(2, b"fd2 ")
    print("shown", file=q.stderr)
    print("shown", file=q.stdout)
for fd in map(int, sys.argv[2].split()):
    try:
        os.fstat(fd)
    except OSError:
        continue
    sys.exit(f"{fd} was left open")
open(sys.argv[1], "w").write(q.text())
"""
    )
    shell = f'exec "$0" -c "$@" {" ".join(f"{fd}>&-" for fd in closed.split())}'
    done = child(shell, sys.executable, code, tmp_path / "text", closed, python=("/bin/sh",))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "text").read_text() == "fd1 fd2 "
    assert done.stderr == ("" if "2" in closed.split() else "shown\n")


def test_no_descriptor_is_leaked(child):
    done = child(
        CHATTER
        + """
def count():
    return len(os.listdir("/proc/self/fd"))
with quiet():
    pass
before = count()
for _ in range(50):
    with quiet(), quiet():
        print("x")
assert count() == before, (before, count())
"""
    )
    assert done.returncode == 0, done.stderr


def test_streams_that_are_not_on_a_descriptor():
    # As under a test runner or in a notebook.
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with quiet() as q:
            kept = sys.stdout  # as a logging handler would keep it
            print("hidden")
            print("shown", file=q.stdout)
            print("progress", file=q.stderr)
        assert sys.stdout is out and sys.stderr is err
        kept.write("later\n")
    assert (out.getvalue(), err.getvalue(), q.text()) == ("shown\nlater\n", "progress\n", "hidden\n")


def test_a_terminal_is_still_one_for_us():
    pty = pytest.importorskip("pty")
    code = (
        "from tome_export.quiet import quiet\nimport sys\nwith quiet() as q:\n"
        "  print('hidden')\n  print(q.stderr.isatty(), sys.stderr.isatty(), file=q.stderr)"
    )
    master, slave = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdout=slave, stderr=slave, timeout=60)
    os.close(slave)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert done.returncode == 0 and shown.replace("\r", "") == "True False\n"


@pytest.mark.parametrize("name", ["paddle", "onnx"])
def test_real_engines_are_kept_quiet(child, tiny_bundle, name):
    code = """
import sys
from tome_export.quiet import quiet
with quiet(debug=len(sys.argv) > 3) as q:
    import numpy as np
    from tome_export.bundle import Bundle
    from tome_export.runtimes import open_runtime, probe
    bundle = Bundle.open(sys.argv[1])
    assert probe(sys.argv[2]).usable
    for batch in (1, 2):
        with open_runtime(sys.argv[2], bundle) as runtime:
            runtime.run(np.zeros((batch, 3, 32, 32), np.float32))
"""
    done = child(code, tiny_bundle.path, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if name == "paddle":  # which has a warning and a print to hide, or this test would prove little
        loud = child(code, tiny_bundle.path, name, "debug")
        assert loud.returncode == 0 and loud.stdout + loud.stderr != ""


def test_the_real_converter_is_kept_quiet(child, tiny_files, tmp_path):
    code = """
import sys
from tome_export.quiet import quiet
with quiet() as q:
    import paddle2onnx
    paddle2onnx.export(sys.argv[1] + ".json", sys.argv[1] + ".pdiparams", save_file=sys.argv[2],
                       opset_version=17, auto_upgrade_opset=False, optimize_tool="None")
assert "[Paddle2ONNX]" in q.text()
"""
    done = child(code, tiny_files / "inference", tmp_path / "model.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "model.onnx").stat().st_size > 1000
