"""Two small bundles, and real pictures whose right answers are known from running the model by hand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.export import small
from tests.once import once
from tome_export.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]
LABELS = [f"sort {letter}" for letter in "abcdefghijk"]
_MAIN = "import sys; sys.argv[0] = 'tome-export'; from tome_export.cli import main; main()"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """r = 8, without labels."""
    folder = once(
        tmp_path_factory, "eval", lambda folder: small.export_small("small_vit", folder / "r8", r=8)
    )
    return Bundle.open(folder / "r8")


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Other weights, merging nothing, other pre-processing, with labels; Paddle's model is left out."""

    def make(folder):
        asked = {"r": 0, "seed": 5, "labels": LABELS, "preprocess": "augreg"}
        small.export_small("small_vit", folder / "other", **asked)

    return Bundle.open(once(tmp_path_factory, "eval-other", make) / "other")


@pytest.fixture(scope="session")
def direct():
    """(bundle, pictures) -> their logits, by ONNX Runtime itself."""

    def run(bundle, pictures):
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(
            bundle.path / "inference.onnx", providers=["CPUExecutionProvider"]
        )
        batch = bundle.manifest.preprocess.apply(pictures)
        return np.concatenate([session.run(["logits"], {"image": image[None]})[0] for image in batch])

    return run


@pytest.fixture(scope="session")
def pictures(details):
    return [picture.convert("RGB") for picture in details]


@pytest.fixture(scope="session")
def ranks(bundle, direct, pictures):
    """int [21, 11]: each picture's classes, best first."""
    return np.argsort(-direct(bundle, pictures), 1)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory, pictures, ranks):
    """Pictures in folders named 0 to 10: thirteen with the model's best class as label, five with its third,
    three with its last."""
    folder = tmp_path_factory.mktemp("labelled") / "val"
    for i, picture in enumerate(pictures):
        rank = 0 if i < 13 else 2 if i < 18 else -1
        path = folder / str(ranks[i, rank]) / f"picture {i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return folder


@pytest.fixture(scope="session")
def many(tmp_path_factory, labelled):
    """A list that names the labelled pictures again and again: more than could be evaluated in a minute."""
    lines = [
        f"{path.relative_to(labelled)}\t{path.parent.name}\n" for path in sorted(labelled.glob("*/*.png"))
    ]
    file = tmp_path_factory.mktemp("many") / "many.txt"
    file.write_text("".join(lines) * 10_000)
    return file


def start(arguments, folder, **options):
    """The command, as a process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", _MAIN, *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, env=environment, **{**piped, **options})


def run(arguments, folder):
    process = start(arguments, folder)
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def children(pid):
    """Process numbers of the children of a process."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in listed.stdout.split()]
