"""Fixtures for every test."""

import gc
import importlib
import importlib.util
import sys

import pytest


def pytest_configure():
    """Imports make no garbage worth looking for."""
    gc.disable()


def pytest_collection_finish():
    """Exports collect garbage often: leave out what was imported, which is there to the end anyway."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def ppcls():
    """PaddleClas's package of models, from the paddleclas package or a folder on the path.

    pip install --no-deps paddleclas==2.6.0 && pip install ".[paddleclas]" brings it.
    """
    found = importlib.util.find_spec("paddleclas")
    if found is not None and found.submodule_search_locations:
        sys.path.append(found.submodule_search_locations[0])
    try:
        return importlib.import_module("ppcls.arch.backbone.model_zoo")
    except Exception as error:
        pytest.skip(f"PaddleClas cannot be imported ({type(error).__name__}: {error})")
