"""What the terminal shows."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tome_export.console import giga, size, table

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(*arguments):
    """What a command writes to a terminal, escape sequences removed, and its exit status."""
    master, slave = pty.openpty()
    script = Path(sys.executable).with_name("tome-export")
    child = subprocess.Popen([script, *arguments], stdout=slave, stderr=slave, stdin=subprocess.DEVNULL)
    os.close(slave)
    written = b""
    while True:
        try:
            chunk = os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(master)
    return ESCAPES.sub("", written.decode()), child.wait(timeout=60)


def test_a_terminal_sees_spinners_and_results_but_no_third_party(tmp_path):
    out = str(tmp_path / "out")
    text, status = on_terminal(
        "--model", "vit_ti16", "--image-size", "32", "--num-classes", "5", "--r", "1", "--out", out
    )
    assert status == 0, text
    assert "trace and save for Paddle Inference ..." in text  # the spinner
    for noise in ("ccache", "Warning", "warnings.warn", "paddle2onnx", "[INFO]", "WARNING"):
        assert noise not in text, text
    assert "tome-export verify" in text


def test_columns_are_aligned():
    shown = table([("name", "size"), ("a", 5), ("longer", 12345)], right=[1])
    assert shown == "  name     size\n  a           5\n  longer  12345"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(12, "12 B"), (768_600, "768.6 kB"), (348_600_000, "348.6 MB"), (2_530_000_000, "2.53 GB")],
)
def test_sizes_come_in_the_unit_that_fits(count, shown):
    assert size(count) == shown


def test_multiply_adds_come_in_billions():
    assert giga(17_563_000_000) == "17.56 G"
