"""Shared: a small bundle, the programs of deploy/ ready to run, real photographs."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.deploy import sdk
from tests.export import small
from tests.once import once

PYTHON = sdk.ROOT / "deploy" / "python" / "classify.py"
RUNTIMES = ("onnx", "paddle")
PROGRAMS = [(language, runtime) for language in ("python", "cpp") for runtime in RUNTIMES]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A real export, with labels that need care: its folder."""

    def make(folder):
        out = folder / "bundle"
        small.export_small("small_deit", out, r=8, outputs=("logits", "sources"))
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["labels"] = ['"quoted"', "Käfer", "猫", *(f"kind {i}" for i in range(small.CLASSES - 3))]
        (out / "manifest.json").write_text(json.dumps(manifest))

    return once(tmp_path_factory, "deploy-bundle", make) / "bundle"


@pytest.fixture
def variant(bundle, tmp_path):
    """Make a bundle whose manifest a function has changed: variant(change) -> its folder."""

    def build(change):
        folder = tmp_path / f"variant{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for path in bundle.iterdir():
            (folder / path.name).symlink_to(path)
        manifest = json.loads((bundle / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return build


@pytest.fixture(scope="session")
def photos():
    """Three photographs: 640 x 427 twice, and 512 x 600."""
    import matplotlib
    import sklearn.datasets

    images = Path(sklearn.datasets.__file__).parent / "images"
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [images / "china.jpg", images / "flower.jpg", hopper]


@pytest.fixture(scope="session")
def cpp(tmp_path_factory):
    """Folder with onnx_classify and paddle_classify. PADDLE_LIB and ONNXRUNTIME_DIR say against what."""

    def make(folder):
        official = {name: os.environ.get(name) for name in ("ONNXRUNTIME_DIR", "PADDLE_LIB")}
        onnx, paddle = official.values()
        try:
            arguments = [f"-DONNXRUNTIME_DIR={onnx}"] if onnx else sdk.onnxruntime_dir(folder / "onnx")
            arguments += [f"-DPADDLE_LIB={paddle}"] if paddle else sdk.paddle_lib(folder / "paddle")
            sdk.build(folder, *arguments)
        except sdk.NotHere as missing:
            if os.environ.get("DEPLOY_CPP") == "required":
                raise
            (folder / "missing").write_text(str(missing))

    folder = once(tmp_path_factory, "cpp", make)
    if (folder / "missing").exists():
        pytest.skip((folder / "missing").read_text())
    return folder / "build"


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """A folder with numpy, Pillow, the two runtimes and what those ask for, and without this project."""

    def make(folder):
        todo, done = ["numpy", "pillow", "onnxruntime", "paddlepaddle", "setuptools"], set()
        while todo:
            name = todo.pop()
            try:
                package = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue  # for another platform
            for top in {file.parts[0] for file in package.files or () if ".." not in file.parts}:
                if not (folder / top).exists():
                    (folder / top).symlink_to(package.locate_file(top))
            needs = [need for need in package.requires or () if "extra ==" not in need]
            todo += [name for need in needs if (name := re.match(r"[\w.-]+", need)[0]) not in done]
            done.add(name)

    return once(tmp_path_factory, "bare-site", make)


@pytest.fixture(scope="session")
def run(request, bare_python):
    """run((language, runtime), *arguments) -> the finished process of that program."""

    def start(program, *arguments):
        language, runtime = program
        env = os.environ | {"OMP_NUM_THREADS": "2"}
        if language == "python":
            command = [sys.executable, "-S", PYTHON, "--runtime", runtime]
            env["PYTHONPATH"] = str(bare_python)
        else:
            command = [request.getfixturevalue("cpp") / f"{runtime}_classify"]
        return subprocess.run(
            [*map(str, command), *map(str, arguments)], capture_output=True, text=True, timeout=60, env=env
        )

    return start
