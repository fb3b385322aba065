"""The four programs of deploy/ as their user meets them: one command line, one output, real runtimes."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.deploy.conftest import PROGRAMS, PYTHON, RUNTIMES
from tome_export.bundle import Bundle
from tome_export.predict import predict_files
from tome_export.quiet import quiet

ONNX = [program for program in PROGRAMS if program[1] == "onnx"]


@pytest.mark.parametrize("program", PROGRAMS, ids="-".join)
def test_it_answers_as_predict_does(program, run, bundle, photos):
    """Three photographs in batches of two, so that the last batch is not full."""
    done = run(program, bundle, *photos, "--batch", 2, "--threads", 2, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    with quiet():
        name, predictions = predict_files(bundle, photos, program[1])
    assert f"{report['runtime']} {report['version']}" == name
    assert (report["precision"], report["device"], report["threads"]) == ("fp32", "cpu", 2)
    assert [image["path"] for image in report["images"]] == [str(photo) for photo in photos]
    for image, wanted in zip(report["images"], predictions, strict=True):
        assert [(guess["index"], guess["label"]) for guess in image["top"]] == [
            (each.index, each.label) for each in wanted
        ]
        found = [guess["probability"] for guess in image["top"]]
        np.testing.assert_allclose(found, [each.probability for each in wanted], atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_both_languages_print_the_same(runtime, run, bundle, photos):
    texts = [run((language, runtime), bundle, *photos, "--top", 11).stdout for language in ("python", "cpp")]
    assert texts[0] == texts[1]
    lines = texts[0].splitlines()
    assert len(lines) == 3 * 12
    assert lines[0].startswith(f"{photos[0]} ({runtime} ")
    assert len({len(line) for line in lines[1:12]}) == 1  # aligned, whatever the script of the label
    assert abs(sum(float(line.split()[-1]) for line in lines[1:12]) - 1) < 1e-3


@pytest.mark.parametrize("program", ONNX, ids="-".join)
def test_repeat_says_how_long_the_model_takes(program, run, bundle, photos):
    done = run(program, bundle, *photos, "--batch", 2, "--repeat", 4, "--json")
    timing = json.loads(done.stdout)["timing"]
    assert (timing["batch"], timing["runs"]) == (2, 4)
    assert 0 < timing["fastest_ms"] <= timing["median_ms"] <= timing["slowest_ms"]
    assert timing["images_per_s"] == pytest.approx(2000 / timing["median_ms"])
    assert timing["prepare_ms"] > 0
    text = run(program, bundle, photos[0], "--repeat", 1, "--threads", 2).stdout
    assert "\nbatch 1, fp32, cpu, 2 threads: median " in text


@pytest.mark.parametrize("program", ONNX, ids="-".join)
def test_a_bundle_without_labels_gives_class_numbers(program, run, variant, photos):
    done = run(program, variant(lambda manifest: manifest.update(labels=None)), photos[0], "--json")
    top = json.loads(done.stdout)["images"][0]["top"]
    assert [guess["label"] for guess in top] == [f"class {guess['index']}" for guess in top]


def bad_requests(variant, bundle, photo, folder):
    """What is asked -> what the error says, in either language."""
    (folder / "text.jpg").write_text("hello")
    (folder / "cut.jpg").write_bytes(photo.read_bytes()[:4000])
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    Image.new("L", (1, 3_000_000)).save(folder / "thin.png")
    newer = variant(lambda manifest: manifest.update(schema_version=2))
    outside = variant(lambda manifest: manifest["artifacts"][1].update(files={"../inference.onnx": "0" * 64}))
    return {
        (bundle,): "",
        (bundle, photo, "--batch", 0): 'whole number from 1 to 1000000, not "0"',
        (bundle, photo, "--colour"): "--colour",
        (bundle, photo, "--gpu"): "leave out --gpu",
        (
            bundle,
            photo,
            "--precision",
            "int4",
        ): "holds no onnx model in int4; it holds paddle fp32, onnx fp32",
        (folder / "none", photo): "no such bundle folder",
        (folder, photo): "it has no manifest.json",
        (newer, photo): "schema_version is 2; this program reads 1",
        (outside, photo): "is not a path inside the bundle",
        (bundle, folder / "none.jpg"): "none.jpg: no such file",
        (bundle, photo, folder / "text.jpg"): "text.jpg: ",
        (bundle, folder / "cut.jpg"): "cut.jpg: cannot be read as a",
        (bundle, folder / "cut.png"): "cut.png: cannot be read as a",
        (bundle, folder / "thin.png"): "1 x 3000000 pixels is too long and thin",
    }


@pytest.mark.parametrize("program", ONNX, ids="-".join)
def test_a_wrong_request_is_one_line(program, run, variant, bundle, photos, tmp_path):
    for arguments, said in bad_requests(variant, bundle, photos[0], tmp_path).items():
        done = run(program, *arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert said in done.stderr


@pytest.mark.parametrize("program", PROGRAMS, ids="-".join)
def test_a_damaged_model_is_one_line(program, run, variant, photos):
    folder = variant(lambda manifest: None)
    for name in ("inference.onnx", "inference.json"):
        (folder / name).unlink()
        (folder / name).write_text("{}")
    done = run(program, folder, photos[0])
    assert done.returncode == 1, done.stderr
    assert done.stdout == "" and "error: " in done.stderr.splitlines()[-1]


def test_the_python_program_does_without_this_project(bundle, photos, run, bare_python):
    """All runs above are in an environment that has only what users are told to install."""
    assert Bundle.open(bundle).manifest.model.name == "small_deit"
    names = {path.name for path in bare_python.iterdir()}
    assert {"numpy", "PIL", "onnxruntime", "paddle"} <= names
    assert not [name for name in names if name.startswith("tome")]
    for path in PYTHON.parent.glob("*.py"):
        assert "tome_" not in path.read_text(), path
