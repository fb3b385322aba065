"""The import rule: data flows one way, from the algorithm to the export to the runtimes."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("paddle", "onnxruntime", "onnx", "openvino", "paddle2onnx", "tensorrt", "ray", "tritonclient")
# What reads a bundle: none of it may reach for the Python model, so that it runs where that is not.
OF_BUNDLES = [
    "bundle", "doctor", "errors", "manifest", "predict", "preprocess", "quiet", "onnx_shell", "onnx_taps",
    "lint", "lint.report", "staging", "steps", "strict_json", "views", "visualize", "console",
    "parity.decisions", "parity.figures", "parity.following", "parity.inputs", "parity.judge",
    "parity.limits", "parity.recipe", "parity.result", "parity.rows", "parity.samples", "parity.stages",
    "parity.verify", "parity.html", "parity.report.agreement", "parity.report.environment",
    "parity.report.figures", "parity.report.groups", "parity.report.schedule", "parity.report.verdict",
    "pictures", "sources", "pictures.html", "pictures.panels", "pictures.sheet",
    "evaluate", "evaluation.classes", "evaluation.dataset", "evaluation.follow", "evaluation.interrupt",
    "evaluation.metrics", "evaluation.outcomes", "evaluation.pool", "evaluation.progress",
    "evaluation.report", "evaluation.slots", "evaluation.supply", "evaluation.table",
    "evaluation.worker",
    "predict_many", "offline.cluster", "offline.gather", "offline.listing", "offline.parts", "offline.report",
    "offline.request", "offline.run", "offline.stages", "offline.table",
    "precision.fp16", "precision.gate", "precision.half", "precision.int8",
    "precision.keep", "precision.layers", "precision.made", "precision.makers", "precision.pictures",
    "precision.result", "precision.sensitivity",
    "tensorrt.cache", "tensorrt.engine", "tensorrt.gpu",
    "served", "serving.app", "serving.batching", "serving.config_file", "serving.grpc_messages",
    "serving.guard", "serving.http", "serving.local", "serving.metrics", "serving.models", "serving.needs",
    "serving.options", "serving.pictures", "serving.processes", "serving.protocol", "serving.proxy",
    "serving.refusal", "serving.replica", "serving.service", "serving.start", "serving.tensors",
    "triton.config", "triton.pbtxt", "triton.repository", "triton.serving",
    "bench", "benching.contenders", "benching.machine", "benching.memory", "benching.memory_child",
    "benching.merging", "benching.plot", "benching.report", "benching.result", "benching.sweep",
    "benching.turns",
]  # fmt: skip
MODEL_FREE = {f"tome_core.{name}" for name in ("errors", "palette", "schedule", "visualize")}


def modules(package):
    """Dotted name -> file, of every module in the package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.parent.name == "files":  # copied into what is deployed, and run there
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    assert found
    return found


CORE, EXPORT = modules("tome_core"), modules("tome_export")
RUNTIMES = {name: path for name, path in EXPORT.items() if name.startswith("tome_export.runtimes")}
FILES = {**CORE, **EXPORT}
# Nothing happens in these without an engine, and only functions import them.
HEAVY = {
    f"tome_export.{name}"
    for name in (
        *("describe", "onnx_graph", "onnx_shell", "onnx_taps", "onnx_weights", "source", "trace"),
        *("parity.dygraph", "parity.rebuild", "precision.half", "precision.layers", "benching.twin"),
    )
}
LIGHT = ["tome_core", *sorted(MODEL_FREE), *(name for name in EXPORT if name not in HEAVY)]


def imports(path, name):
    """Dotted names that a file imports anywhere in it, inside functions and under TYPE_CHECKING too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
            if isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    return found


def inside(imported, package):
    return {name for name in imported if name == package or name.startswith(f"{package}.")}


@pytest.mark.parametrize("name", CORE)
def test_the_algorithm_knows_nothing_of_the_export(name):
    assert not inside(imports(CORE[name], name), "tome_export")


@pytest.mark.parametrize("name", CORE)
def test_the_algorithm_needs_paddle_and_numpy_only(name):
    allowed = {"paddle", "numpy", "tome_core"} | sys.stdlib_module_names
    outside = {imported for imported in imports(CORE[name], name) if imported.split(".")[0] not in allowed}
    assert not outside


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtimes_import_no_model_code(name):
    imported = imports(RUNTIMES[name], name)
    core = {each for each in inside(imported, "tome_core") if each in CORE}
    assert core <= MODEL_FREE


@pytest.mark.parametrize("name", [*RUNTIMES, *(f"tome_export.{each}" for each in OF_BUNDLES)])
def test_what_reads_a_bundle_reaches_no_model_code_by_any_road(name):
    """Not through another module of ours either."""
    seen, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        todo += [each for each in imports(FILES[current], current) if each in FILES]
    reached = {each for each in seen if each.startswith("tome_core.")} - MODEL_FREE
    assert not reached, sorted(reached)


@pytest.mark.parametrize("name", LIGHT)
def test_importing_it_imports_no_engine(name):
    """Engines take seconds and print; they are imported when they are used."""
    assert loaded_by_each()[name] == []


_CODE = """
import importlib, os, sys
for name in sys.argv[2:]:
    if os.fork() == 0:  # each from the same bare start
        importlib.import_module(name)
        print(name, *sorted(set(sys.argv[1].split(",")) & set(sys.modules)), flush=True)
        os._exit(0)
    os.wait()
"""


@functools.cache
def loaded_by_each():
    """Module -> the engines that importing it, and nothing else, brings in."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CODE, ",".join(ENGINES), *LIGHT],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


def test_the_checks_themselves_can_see(tmp_path):
    """A file that breaks the rule in every way there is."""
    path = tmp_path / "bad.py"
    path.write_text(
        "import tome_export.cli as c\n"
        "def f():\n"
        "    from tome_core import zoo\n"
        "    from ..patch import apply_patch\n"
        "    import importlib\n"
        "    importlib.import_module('tome_export.trace')\n"
    )
    found = imports(path, "tome_core.checkpoints.bad")
    assert {"tome_export.cli", "tome_core.zoo", "tome_core.patch", "tome_export.trace"} <= found
    assert inside(found, "tome_export") == {"tome_export.cli", "tome_export.trace"}
