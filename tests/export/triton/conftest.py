"""A bundle of a small ViT as a model repository, and the server's environment where there is one."""

import os
from pathlib import Path

import pytest

from tests.export import small
from tests.once import once
from tome_export.bundle import Bundle
from tome_export.triton.repository import write_repository
from tome_export.triton.serving import Serving

LABELS = [f"café {index}" for index in range(small.CLASSES)]


@pytest.fixture(scope="session")
def served_bundle(tmp_path_factory):
    asked = {"r": 8, "labels": LABELS, "outputs": ("logits", "sources")}
    folder = once(
        tmp_path_factory, "served", lambda folder: small.export_small("small_vit", folder / "bundle", **asked)
    )
    return Bundle.open(folder / "bundle")


@pytest.fixture(scope="session")
def environment():
    """The folder of a virtual environment that holds a tritonserver; see server.py."""
    if "TOME_TRITONSERVER" not in os.environ:
        pytest.skip(
            "no tritonserver: TOME_TRITONSERVER is not set (tests/export/triton/server.py says to what)"
        )
    return Path(os.environ["TOME_TRITONSERVER"]).resolve(strict=True)


@pytest.fixture(scope="session")
def server(environment, served_bundle, tmp_path_factory):
    """Running, with requests held back long enough that those of several clients meet."""
    from tests.export.triton.server import Server

    folder = tmp_path_factory.mktemp("triton")
    serving = Serving("vit", max_batch=16, preferred_batches=(8,), max_delay_us=50_000, threads=2, top=5)
    write_repository(served_bundle, folder / "models", serving)
    with Server(environment, folder / "models", folder) as running:
        yield running
