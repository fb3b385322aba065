"""Shared: the tiny model, its bundle, real photographs, and an environment without the engines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.export import small, tiny
from tests.once import once
from tome_export.bundle import Bundle
from tome_export.quiet import quiet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_layer():
    with quiet():
        return tiny.make_layer()


@pytest.fixture(scope="session")
def tiny_files(tiny_layer, tmp_path_factory):
    """Folder with the tiny model's inference.json, inference.pdiparams and inference.onnx."""
    folder = tmp_path_factory.mktemp("tiny")
    with quiet():
        tiny.save_model(tiny_layer, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_files, tmp_path_factory):
    return tiny.write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", tiny_files)


@pytest.fixture(scope="session")
def photos():
    """Three photographs, RGB: 640 x 427 twice, and 512 x 600."""
    import matplotlib
    from sklearn.datasets import load_sample_image

    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [
        Image.fromarray(load_sample_image("china.jpg")),
        Image.fromarray(load_sample_image("flower.jpg")),
        Image.open(hopper).convert("RGB"),
    ]


@pytest.fixture(scope="session")
def small_bundles(tmp_path_factory):
    """(model, schedule) -> the bundle that the whole pipeline made of it; see `small.CASES`."""
    folder = once(tmp_path_factory, "small", small.export_all)
    return {case: Bundle.open(folder / "-".join(case)) for case in small.CASES}


@pytest.fixture(scope="session")
def details(photos):
    """Twenty-one real pictures, parts of the three photographs."""
    return small.details(photos)


@pytest.fixture(scope="session")
def child():
    """Run Python code in a fresh process that can import this project; returns the finished process."""

    def run(code, *arguments, python=(sys.executable,), path=(), **options):
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
        return subprocess.run(
            [*python, "-c", code, *map(str, arguments)],
            env=env,
            text=True,
            timeout=60,
            **({"capture_output": True} | options),
        )

    return run


@pytest.fixture(scope="session")
def bare_child(child, tmp_path_factory):
    """Like `child`, in an environment that truly has numpy and Pillow and no other package."""
    import numpy
    import PIL

    site = tmp_path_factory.mktemp("site")
    for module in (numpy, PIL):
        installed = Path(module.__file__).parents[1]
        for found in installed.glob(f"{module.__name__.replace('PIL', '[pP][iI][lL]')}*"):
            (site / found.name).symlink_to(found)

    def run(code, *arguments):
        return child(code, *arguments, python=(sys.executable, "-S"), path=(site,))

    return run
