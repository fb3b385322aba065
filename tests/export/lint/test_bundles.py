"""Real bundles: lint finds nothing against them, and they run, on every runtime there is here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.export import small
from tests.export.lint import engines
from tests.export.lint.conftest import CASES
from tome_export.bundle import Bundle
from tome_export.errors import BundleError, ConversionError, RequestError
from tome_export.lint import TARGETS, lint_bundle, lint_paddle, paddle_reader
from tome_export.manifest import Manifest
from tome_export.runtimes import open_runtime

MAIN = [sys.executable, "-c", "from tome_export.cli import main; main()"]


def command(*arguments):
    return subprocess.run(
        [*MAIN, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=small.ROOT
    )


@pytest.mark.parametrize("index", range(len(CASES)), ids=map(str, CASES))
@pytest.mark.filterwarnings("ignore")
def test_clean_and_running(bundles, index):
    bundle, opset = bundles[index], CASES[index][2]
    report = lint_bundle(bundle)
    expected = [name for name in TARGETS if name != "tensorrt-8.6" or opset <= 17]
    assert list(report.clean) == expected
    assert all("opset" in finding.problem for finding in report.findings)

    image = np.random.default_rng(0).normal(size=(2, 3, small.SIZE, small.SIZE)).astype(np.float32)
    with open_runtime("paddle", bundle) as runtime:
        wanted = runtime.run(image)
    model = onnx.load(bundle.path / "inference.onnx")
    names = [output.name for output in model.graph.output]
    for run in engines.ENGINES.values():
        found = dict(zip(names, run(model, {"image": image}), strict=True))
        assert small.relative(found["logits"], wanted["logits"]) < 1e-4
        assert (found["sources"] == wanted["sources"]).all()


def test_the_program_is_read_as_paddle_reads_it(bundles):
    code = (
        "import sys, paddle; paddle.enable_static()\n"
        "program, _, _ = paddle.static.load_inference_model(sys.argv[1], paddle.static.Executor())\n"
        "print('OPS', *[op.name() for op in program.global_block().ops])"
    )
    prefix = bundles[0].path / "inference"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, prefix], capture_output=True, text=True
    )
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("OPS ")]
    known = [
        name for name in said.split()[1:] if name not in ("builtin.parameter", "pd_op.feed", "pd_op.data")
    ]
    ours = paddle_reader.operator_names(bundles[0].path / "inference.json")
    assert [name for name in ours if name not in ("builtin.parameter", "pd_op.data")] == known
    assert len(known) > 300


def test_a_fault_put_into_a_real_program_is_found(bundles, tmp_path):
    text = (bundles[0].path / "inference.json").read_text()
    bad = tmp_path / "inference.json"
    bad.write_text(text.replace('"1.take_along_axis"', '"1.put_along_axis"'))
    report = lint_paddle(bad)
    assert {(each.operator, each.severity) for each in report.findings} == {
        ("pd_op.put_along_axis", "yellow")
    }
    bad.write_text(text.replace("[-1,3,64,64]", "[-1,3,-1,64]"))
    assert "red" in {each.severity for each in lint_paddle(bad).findings}
    bad.write_text("{}")
    with pytest.raises(BundleError, match="cannot be read as a Paddle program"):
        lint_paddle(bad)


def test_the_command_puts_verdicts_first_and_exits_with_them(bundles):
    clean = command("lint", bundles[0].path)
    lines = clean.stdout.splitlines()
    assert clean.returncode == 0 and not clean.stderr
    assert lines[0].split() == ["target", "verdict", "operators", "red", "yellow"]
    assert [line.split()[:2] for line in lines[1 : 1 + len(TARGETS)]] == [[name, "clean"] for name in TARGETS]
    assert lines[-1] == f"  tome-export verify {bundles[0].path}"

    failing = command("lint", bundles[3].path, "--target", "tensorrt-8.6,openvino", "--target", "tensorrt-10")
    assert failing.returncode == 1
    assert [line.split()[0] for line in failing.stdout.splitlines()[1:4]] == [
        "tensorrt-8.6",
        "tensorrt-10",
        "openvino",
    ]
    assert "red     model: opset 20 is beyond 17" in failing.stdout

    data = json.loads(command("lint", bundles[3].path, "--json").stdout)
    assert [each["target"] for each in data["verdicts"]] == list(TARGETS)
    (finding,) = data["findings"]
    assert (finding["target"], finding["severity"]) == ("tensorrt-8.6", "red")

    wrong = command("lint", bundles[0].path, "--target", "tensorrt-9")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: no target 'tensorrt-9'; choose from")


def test_a_missing_format(bundles, tmp_path):
    paddle_only = small.export_small("small_vit", tmp_path / "out", r=8, formats=["paddle"])
    assert [verdict.target for verdict in lint_bundle(paddle_only).verdicts] == ["paddle-trt"]
    with pytest.raises(BundleError, match="tensorrt-10 reads onnx, which this bundle does not hold"):
        lint_bundle(paddle_only, ["tensorrt-10"])


def test_the_manifest_records_what_was_linted_clean(tmp_path):
    asked = ["tensorrt-10", "openvino,paddle-trt"]
    bundle = small.export_small("small_vit", tmp_path / "out", r=8, targets=asked)
    assert Bundle.open(bundle.path).manifest.linted == ("tensorrt-10", "openvino", "paddle-trt")
    old = json.loads((bundle.path / "manifest.json").read_text())
    del old["linted"]  # as written before there was a linter
    assert Manifest.from_json(json.dumps(old)).linted == ()


def test_a_red_finding_fails_the_export_and_leaves_nothing(tmp_path):
    with pytest.raises(
        ConversionError, match="tensorrt-8.6: model: opset 20 is beyond 17.* --opset 17 or lower"
    ):
        small.export_small("small_vit", tmp_path / "out", r=8, opset=20, targets=["tensorrt-8.6"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RequestError, match="the target tensorrt-10 reads onnx; add it to the formats"):
        small.export_small("small_vit", tmp_path / "out", r=8, formats=["paddle"], targets=["tensorrt-10"])


def test_without_the_onnx_package(bare_child, bundles):
    code = (
        "import sys\nfrom tome_export.bundle import Bundle\nfrom tome_export.lint import lint_bundle\n"
        "bundle = Bundle.open(sys.argv[1])\nprint(lint_bundle(bundle, ['paddle-trt']).clean)\n"
        "lint_bundle(bundle)"
    )
    done = bare_child(code, Path(bundles[0].path))
    assert done.stdout.strip() == "('paddle-trt',)"  # Paddle's program is plain JSON
    assert done.stderr.splitlines()[-1].endswith(
        'lint needs the package onnx: pip install "tome-export[cpu]"'
    )
