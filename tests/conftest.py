"""Fixtures for every test."""

import gc
import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

# Two processes share the files, and one that comes last and takes a minute has a processor to itself.
LONGEST_FIRST = (
    "export/test_artifacts.py",
    "export/test_cli.py",
    "core/test_patch_foreign.py",
    "export/parity/test_faults.py",
    "export/tuning/test_tune.py",
    "export/lint/test_agreement.py",
    "export/benching/test_bench.py",
    "examples/test_digits.py",
    "core/test_training.py",
    "export/precision/test_int8.py",
    "export/precision/test_fp16.py",
    "deploy/test_classify.py",
    "export/parity/test_verify.py",
    "export/lint/test_tables.py",
    "export/test_export.py",
    "examples/test_finetune.py",
    "core/checkpoints/test_memory.py",
    "export/test_export_objects.py",
    "export/parity/test_html.py",
    "export/parity/test_ties.py",
    "export/evaluation/test_eval_command.py",
    "export/parity/test_no_false_alarm.py",
    "core/test_tracing.py",
)


def pytest_configure(config):
    """Imports make no garbage worth looking for."""
    gc.disable()
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files that have most tests


def pytest_collection_modifyitems(items):
    order = {Path(__file__).parent / file: number for number, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


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
