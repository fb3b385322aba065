"""The figures are there and fit together; what cannot be measured is one line. No speed is asserted."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import onnx
import pytest
from PIL import Image

from tests.export import small
from tome_core.errors import ScheduleError
from tome_export.bench import bench
from tome_export.benching.report import as_text
from tome_export.benching.sweep import bench_sweep, parse
from tome_export.benching.twin import twin
from tome_export.bundle import Bundle
from tome_export.errors import BundleError, RequestError
from tome_export.manifest import WeightsInfo
from tome_export.quiet import quiet
from tome_export.steps import Steps

QUICK = {"batches": (1, 2), "rounds": 3, "threads": 1, "memory": False}
CASE = ("small_vit", "r8")


def run(folder, **options):
    with quiet():
        return bench(folder, **{**QUICK, **options})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TOME_EXPORT_CACHE", str(folder))
        yield folder


def check(found):
    """What holds for every benchmark."""
    assert [(each.batch, each.entry) for each in found.timed] == [
        (int(batch), index) for batch in found.rounds for index in range(len(found.entries))
    ]
    for each in found.timed:
        assert 0 < each.median_ms <= each.p95_ms
        assert each.images_per_second == pytest.approx(1000 * each.batch / each.median_ms)
        assert each.runs == found.rounds[str(each.batch)] * found.runs_a_round
        assert (each.ratio is None) == (found.entries[each.entry].against is None)
        assert each.ratio is None or 0 < each.ratio.low <= each.ratio.median <= each.ratio.high
    text = as_text(found)
    assert all(entry.model in text for entry in found.entries)
    assert max(map(len, text.splitlines())) < 160


def test_all_runtimes_against_the_first(small_bundles):
    found = run(small_bundles[CASE].path, memory=True)
    check(found)
    assert [entry.runtime for entry in found.entries] == ["paddle", "onnx", "openvino"]
    assert [entry.against for entry in found.entries] == [None, 0, 0]
    assert found.rounds == {"1": 3, "2": 3} and found.notes == ()
    for each in found.timed:
        entry = found.entries[each.entry]
        assert 10e6 < entry.engine_memory <= each.memory < 4e9
        assert (each.merging is not None) == (entry.runtime == "onnx")
    assert found.fewer_macs(found.entries[1]) == 1.0


def test_against_another_bundle(small_bundles):
    mine, other = small_bundles[CASE], small_bundles["small_vit", "r0"]
    found = run(mine.path, runtimes=["onnx", "openvino"], against=str(other.path))
    check(found)
    assert [entry.against for entry in found.entries] == [2, 3, None, None]
    assert [entry.runtime for entry in found.entries] == ["onnx", "openvino"] * 2
    macs = mine.manifest.tome.macs
    assert found.fewer_macs(found.entries[0]) == pytest.approx(macs.base / macs.tome)
    assert found.entries[0].r == mine.manifest.tome.r and sum(found.entries[2].r) == 0


def test_a_bundle_against_itself(small_bundles):
    """Only so loosely that a busy machine does not matter."""
    path = small_bundles[CASE].path
    found = run(path, runtimes=["onnx"], against=str(path), rounds=15)
    check(found)
    assert all(0.3 < each.ratio.median < 3 for each in found.timed if each.ratio)
    assert [entry.model for entry in found.entries] == ["small_vit-r8", "small_vit-r8 (2)"]


def test_against_an_onnx_file(small_bundles, tmp_path):
    """Of one output and another name; Paddle is compared with it on ONNX Runtime."""
    model = onnx.load(small_bundles["small_vit", "r0"].path / "inference.onnx")
    del model.graph.output[1:]
    onnx.save(model, tmp_path / "old.onnx")
    found = run(small_bundles[CASE].path, against=str(tmp_path / "old.onnx"), memory=True)
    check(found)
    names = [(entry.model, entry.runtime, entry.against) for entry in found.entries]
    assert [(model, runtime) for model, runtime, _ in names[3:]] == [
        ("old.onnx", "onnx"),
        ("old.onnx", "openvino"),
    ]
    assert [against for *_, against in names] == [3, 3, 4, None, None]
    assert found.entries[3].macs is None and found.fewer_macs(found.entries[0]) is None
    assert found.entries[3].path == str(tmp_path / "old.onnx")
    assert all(each.memory for each in found.timed)


def test_the_twin_is_made_once_and_is_the_model_unmerged(small_bundles, cache):
    class Watch(Steps):
        def __call__(self, name):
            seen.append(name)
            return super().__call__(name)

    seen = []
    bundle = small_bundles[CASE]
    with small.registered():
        found = run(
            bundle.path, runtimes=["onnx"], against="r0", make_twin=lambda b, r, s: twin(b, r, None, Watch())
        )
        assert "trace" in seen
        check(found)
        assert [entry.model for entry in found.entries] == ["small_vit-r8", "r0"]
        kept = Bundle.open(found.entries[1].path)
        assert cache in kept.path.parents
        wanted = small_bundles["small_vit", "r0"]
        assert kept.manifest.tome == wanted.manifest.tome and kept.manifest.outputs == bundle.manifest.outputs
        digest = lambda which: which.artifact("onnx").files["inference.onnx"]  # noqa: E731
        assert digest(kept) == digest(wanted)  # byte for byte the export of the same seed at r = 0
        seen.clear()
        with quiet():
            assert twin(bundle, 0, None, Watch()).path == kept.path and not seen
        (kept.path / "inference.onnx").write_bytes(b"damaged")
        with quiet():
            again = twin(bundle, 0, None, Watch())
        assert "trace" in seen and digest(again) == digest(wanted)


def test_a_sweep(small_bundles, cache):
    with small.registered(), quiet():
        found = bench_sweep(
            small_bundles[CASE].path,
            "r=0,16:-1,8",
            **QUICK,
            runtimes=["onnx"],
            precisions=["fp32"],
            device="cpu",
            seconds=None,
            steps=Steps(),
            make_twin=lambda bundle, r, steps: twin(bundle, r, None, steps),
        )
    check(found)
    assert [entry.model for entry in found.entries] == ["r=0", "r=16:-1", "r=8"]
    assert [entry.against for entry in found.entries] == [None, 0, 0]
    fewer = [found.fewer_macs(entry) for entry in found.entries]
    assert fewer[0] is None and fewer[1] > fewer[2] > 1


def test_values_of_a_sweep():
    assert parse("0,4, 16:-1") == {"0": 0, "4": 4, "16:-1": (16, -1.0)}
    assert parse("r=0,8") == {"0": 0, "8": 8}
    for wrong in ("8", "0,x", "0,8:", "0,,8", ""):
        with pytest.raises(ScheduleError, match="--sweep"):
            parse(wrong)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"runtimes": ["tvm"]}, "no runtime 'tvm'; choose one of"),
        ({"runtimes": ["onnx"], "precisions": ["int8"]}, "holds no onnx model in int8"),
        ({"precisions": ["int8"]}, "nothing here runs small_vit-r8 in int8"),
        ({"batches": (0,)}, "at least one image"),
        ({"batches": ()}, "at least one image"),
        ({"rounds": 0}, "at least one round, not 0"),
        ({"seconds": -1}, "above 0 seconds, not -1"),
        ({"seconds": float("nan")}, "above 0 seconds"),
        ({"threads": 0}, "threads should be at least 1"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"against": "nowhere"}, "nowhere: no such file; --against takes r0, a bundle or an .onnx file"),
        ({"against": "."}, "not an exported bundle"),
        ({"against": "r0"}, "no Python model here"),
    ],
)
def test_what_cannot_be_measured(options, told, small_bundles):
    with pytest.raises(RequestError, match=told) as caught:
        run(small_bundles[CASE].path, **options)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_fit(small_bundles, tiny_bundle, tmp_path):
    path = small_bundles[CASE].path
    with pytest.raises(RequestError, match="takes images of 32 pixels, small_vit-r8 of 64"):
        run(path, against=str(tiny_bundle.path))
    with pytest.raises(
        RequestError, match=r"inference.onnx: takes \[-1, 3, 32, 32\], and the bundle one image"
    ):
        run(path, against=str(tiny_bundle.path / "inference.onnx"))
    model = onnx.load(path / "inference.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    with pytest.raises(RequestError, match="takes batches of 4 only; export it with a dynamic batch"):
        run(path, against=str(tmp_path / "four.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match="not an ONNX model"):
        run(path, against=str(tmp_path / "bad.onnx"))
    with pytest.raises(RequestError, match="it is r0 itself"):
        run(small_bundles["small_vit", "r0"].path, against="r0")


def test_a_model_that_cannot_be_built_again(small_bundles):
    bundle = small_bundles[CASE]
    for weights, told in (
        (
            WeightsInfo("Net object"),
            "made of a Net object, which cannot be built again; compare with another",
        ),
        (
            WeightsInfo("w.npz", sha256="0" * 64),
            r"needs the file it was made of \(w.npz\): add --weights FILE",
        ),
    ):
        changed = Bundle(bundle.path, replace(bundle.manifest, weights=weights))
        with pytest.raises(RequestError, match=told):
            twin(changed, 0)


# ---------------------------------------------------------------- the command

_MAIN = """
import sys
from tests.export import small
from tome_export.cli import main
with small.registered():
    main()
"""


def command(folder, *arguments):
    env = os.environ | {"PYTHONPATH": str(small.ROOT), "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-c", _MAIN, "bench", *map(str, arguments)],
        cwd=folder, env=env, text=True, capture_output=True, timeout=120,
    )  # fmt: skip


def test_the_command(small_bundles, cache, tmp_path):
    shutil.copytree(small_bundles[CASE].path, tmp_path / "infer")
    done = command(
        tmp_path, "infer", "--runtime", "onnx,paddle", "--against", "r0", "--batch", "1,3", "--rounds", "3",
        "--threads", "1", "--json", "speed.json", "--plot", "speed.png",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["schema_version"] == 1 and found["threads"] == 1 and found["rounds"] == {"1": 3, "3": 3}
    assert [entry["name"] for entry in found["entries"]] == [
        "infer onnx fp32", "infer paddle fp32", "r0 onnx fp32", "r0 paddle fp32",
    ]  # fmt: skip
    assert found["entries"][0]["fewer_macs"] > 1 and found["entries"][2]["fewer_macs"] is None
    assert len(found["timed"]) == 8 and all(each["memory"] > 10e6 for each in found["timed"])
    assert set(found["timed"][0]["ratio"]) == {"median", "low", "high"}
    for each in found["timed"][:4]:  # the text says what the file says
        assert f"{each['median_ms']:.1f} ms" in done.stdout
    assert "batch 3, 3 rounds of 3 runs" in done.stdout and "of r0" in done.stdout
    assert "share of merging" in done.stdout
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.format == "PNG" and picture.width > 500


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch", "1;8"], "--batch '1;8' is not a list of batch sizes such as 1,8"),
        (["--plot", "speed.txt"], "speed.txt: cannot draw that format; name it .png"),
        (["--json", "no/where.json"], "no/where.json: there is no folder no"),
        (["--sweep", "0,8", "--against", "r0"], "--sweep compares with its first r"),
        (["--runtime", "onnx,paddle", "--sweep", "0,8"], "a sweep takes one runtime and one precision"),
        (["--rounds", "0"], "at least one round"),
    ],
)
def test_mistakes_in_the_command(arguments, told, small_bundles, tmp_path):
    done = command(tmp_path, small_bundles[CASE].path, *arguments)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and told in line
