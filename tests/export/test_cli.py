"""The command line as its user meets it: real processes, exact output, exit statuses, nothing left behind."""

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

from tests.export import small
from tome_export.bundle import Bundle
from tome_export.runtimes import open_runtime

SCRIPTS = Path(sysconfig.get_path("scripts"))
COMMAND = SCRIPTS / "tome-export"
ENVIRONMENT = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"}


def start(arguments, folder, **options):
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([COMMAND, *map(str, arguments)], cwd=folder, env=ENVIRONMENT, **piped, **options)


def run(arguments, folder):
    process = start(arguments, folder)
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def listing(folder):
    """Every path below, with a file's size and time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def one_line(done):
    """The error, which is all that was said about it."""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# ---------------------------------------------------------------- what works

STEPS = [
    "build the model",
    "trace and save for Paddle Inference",
    "convert to ONNX",
    "prove that the runtimes agree with it",
    "write the bundle",
]
SECONDS, SIZE, COST = r" +\d+\.\d s", r"\d+(\.\d+)? [kMG]?B", r"\d+\.\d\d G"


def agreement(inputs, decisions):
    """What is printed of two artifacts that agree with dygraph in every merge."""
    return [
        f"agreement with dygraph on {inputs} inputs, batch 1,3; logits over their range",
        "  runtime  precision  merges that agree  near ties   logits  same merges  allowed",
        *(
            rf"  {runtime} +fp32 +{decisions} of {decisions} +0( +\d\.\de[-+]\d\d){{3}}  ok"
            for runtime in ("paddle", "onnx")
        ),
    ]


FILES = ["inference.json", "inference.pdiparams", "inference.debug.json", "inference.onnx", "manifest.json"]
SUMMARY = [
    *(rf"  {re.escape(step)}{SECONDS}" for step in STEPS),
    rf"  total{SECONDS}(, {SIZE} of memory at most)?",
    "",
    rf"vit_ti16 at 64 px, 17 -> 2 tokens, {COST} -> {COST} multiply-adds \(\d+\.\d\dx fewer\)",
    "no --weights given: the parameters are random, so this bundle serves speed tests only",
    "",
    "'my infer'",
    *(rf"  {re.escape(name)} +{SIZE}" for name in FILES),
    "",
    *agreement(inputs=6, decisions=90),
    "",
    "next",
    r"  tome-export predict 'my infer' PHOTO\.jpg",
    r"  tome-export verify 'my infer'",
    r"  tome-export inspect 'my infer'",
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, photos):
    """A folder in which somebody exported a model to `my infer`, and has a photograph."""
    folder = tmp_path_factory.mktemp("work")
    photos[0].save(folder / "PHOTO.jpg")
    done = run(["--model", "vit_ti16", "--r", "16", "--image-size", "64", "--out", "my infer"], folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def matches(lines, patterns):
    assert len(lines) == len(patterns), "\n".join(lines)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"


def test_an_export_says_this_and_nothing_else(exported):
    folder, done = exported
    assert done.stderr == ""
    matches(done.stdout.splitlines(), SUMMARY)
    assert sorted(path.name for path in folder.iterdir()) == ["PHOTO.jpg", "my infer"]
    said = re.findall(r"^  (\S+) +(\d[\d.]*) ([kMG]?B)$", done.stdout, re.MULTILINE)
    for name, figure, unit in said:
        factor = {"B": 1, "kB": 1e3, "MB": 1e6}[unit]
        assert float(figure) * factor == pytest.approx(
            (folder / "my infer" / name).stat().st_size, rel=0.01, abs=51
        )
    Bundle.open(folder / "my infer").verify_hashes()


def next_command(exported, which):
    """Run the printed command exactly as it is printed, by a shell."""
    folder, done = exported
    line = done.stdout.split("\nnext\n")[1].splitlines()[which].strip()
    assert shlex.split(line)[0] == "tome-export"
    before = listing(folder)
    done = subprocess.run(
        line, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert listing(folder) == before
    return done.stdout.splitlines()


def test_the_next_command_predicts(exported, photos):
    lines = next_command(exported, 0)
    assert re.fullmatch(r"PHOTO\.jpg \(paddle \d+\.\d+\.\d+\)", lines[0])
    matches(lines[1:], [r"  class \d+ +0\.\d{4}"] * 5)
    shown = [re.fullmatch(r"  class (\d+) +(0\.\d+)", line).groups() for line in lines[1:]]
    folder, _ = exported
    bundle = Bundle.open(folder / "my infer")
    from tome_export.preprocess import load_image

    image = bundle.manifest.preprocess.apply(load_image(folder / "PHOTO.jpg"))
    layer = small.build("vit_ti16", 16, seed=0, image_size=64)
    logits = small.answers(layer, image)[0]["logits"][0].astype("float64")
    probability = np.exp(logits) / np.exp(logits).sum()
    best = np.argsort(-probability)[:5]
    assert [int(index) for index, _ in shown] == best.tolist()
    np.testing.assert_allclose([float(value) for _, value in shown], probability[best], atol=1e-4)


def test_the_next_command_verifies(exported):
    lines = next_command(exported, 1)
    matches(
        lines,
        [
            rf"  hash the files{SECONDS}",
            rf"  build the Python model{SECONDS}",
            rf"  paddle fp32{SECONDS}",
            rf"  onnx fp32{SECONDS}",
            "",
            *agreement(inputs=10, decisions=150),
            "",
            "'my infer' is whole, and computes what dygraph computes",
            "",
            "next",
            "  tome-export verify 'my infer' --html report.html",
        ],
    )


def test_verify_for_a_program_to_read(exported):
    folder, _ = exported
    done = run(
        ["verify", "my infer", "--samples", "1", "--batch", "1", "--against", "onnx", "--json"], folder
    )
    data = json.loads(done.stdout)
    assert (data["bundle"], data["against"], data["passed"]) == ("my infer", "onnx", True)
    assert data["inputs"] == ["photo:0"] and data["findings"] == []
    (result,) = data["results"]
    assert (result["runtime"], result["decisions"], result["findings"]) == ("paddle", 15, [])
    matches(done.stderr.splitlines(), [rf"  hash the files{SECONDS}", rf"  paddle fp32{SECONDS}"])


def test_the_next_command_inspects(exported):
    text = "\n".join(next_command(exported, 2))
    assert text.startswith("vit_ti16 at 64 px, 17 -> 2 tokens")
    assert "weights: random, seed 0: for speed tests only" in text and "proportional attention: on" in text
    rows = [line.split() for line in text.splitlines() if re.match(r" +\d+ +\d+ +\d+ +\d+ +\d", line)]
    tokens = [17, 9, 5, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2]  # 16 is cut down to what there is: (n - 1) // 2
    assert [row[:4] for row in rows] == [
        [str(block), str(before), str(before - after), str(after)]
        for block, (before, after) in enumerate(zip(tokens[:-1], tokens[1:], strict=True))
    ]
    for name in ("inference.json", "inference.pdiparams", "inference.onnx", "manifest.json"):
        assert re.search(rf"^  {re.escape(name)} +{SIZE}$", text, re.MULTILINE)
    matches(text.splitlines()[-4:], agreement(inputs=6, decisions=90))


def test_both_runtimes_predict_the_same(exported):
    folder, _ = exported
    shown = {}
    for name in ("paddle", "onnx"):
        done = run(["predict", "my infer", "PHOTO.jpg", "--runtime", name, "--top", "3"], folder)
        assert (done.returncode, done.stderr) == (0, "")
        first, *rest = done.stdout.splitlines()
        assert first.startswith(f"PHOTO.jpg ({name} ")
        shown[name] = rest
    assert shown["paddle"] == shown["onnx"] and len(shown["onnx"]) == 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights files, one good and the rest bad in a way of their own."""
    folder = tmp_path_factory.mktemp("weights")
    good = small.build("vit_ti16", 0, seed=8, image_size=64, num_classes=7).state_dict()
    other = small.build("deit_ti16_distilled", 0, seed=8, image_size=64, num_classes=7).state_dict()
    paddle.save(good, str(folder / "good.pdparams"))
    paddle.save(other, str(folder / "other.pdparams"))
    content = (folder / "good.pdparams").read_bytes()
    (folder / "cut.pdparams").write_bytes(content[: len(content) // 2])
    (folder / "empty.pdparams").write_bytes(b"")
    (folder / "text.pdparams").write_text("these are no weights\n" * 100)
    (folder / "folder.pdparams").mkdir()
    return folder


def test_every_option_at_once(tmp_path, weights, details):
    """Weights of the user's, decreasing r, plain attention, sources, labels, one format."""
    (tmp_path / "labels.txt").write_text("".join(f"thing {index}\n" for index in range(7)))
    done = run(
        ["--model", "vit_ti16", "--weights", weights / "good.pdparams", "--r", 2, "--inflect", "-1"]
        + ["--no-prop-attn", "--image-size", 64, "--num-classes", 7, "--formats", "paddle"]
        + ["--outputs", "logits,sources", "--labels", "labels.txt", "--out", "new/parents/out"],
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "random" not in done.stdout and "good.pdparams" in done.stdout and "ONNX" not in done.stdout
    bundle = Bundle.open(tmp_path / "new" / "parents" / "out")
    manifest = bundle.manifest
    assert [artifact.format for artifact in manifest.artifacts] == ["paddle"]
    assert manifest.tome.r[0] == 4 and not manifest.tome.prop_attn
    assert manifest.labels == tuple(f"thing {index}" for index in range(7))

    layer = small.build("vit_ti16", (2, -1.0), prop_attn=False, seed=8, image_size=64, num_classes=7)
    assert layer.tome.schedule.r == manifest.tome.r
    images = manifest.preprocess.apply(details)
    wanted, margins = small.answers(layer, images)
    clear = margins >= 1e-5
    assert clear.sum() >= 6
    with open_runtime("paddle", bundle) as runtime:
        found = runtime.run(images[clear])
    assert small.relative(found["logits"], wanted["logits"][clear]) <= 1e-4
    np.testing.assert_array_equal(found["sources"], wanted["sources"][clear])
    layer.tome.prop_attn = True
    assert small.relative(small.answers(layer, images[clear])[0]["logits"], found["logits"]) > 1e-3

    details[0].save(tmp_path / "photo.png")
    done = run(["predict", "new/parents/out", "photo.png", "--top", "99"], tmp_path)
    shown = re.findall(r"^  thing (\d) +([01]\.\d{4})$", done.stdout, re.MULTILINE)
    assert sorted(int(index) for index, _ in shown) == list(range(7))
    assert sum(float(value) for _, value in shown) == pytest.approx(1, abs=1e-3)


def test_models_lists_what_can_be_exported(tmp_path):
    done = run(["models"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    expected = "vit_ti16 vit_s16 vit_b16 vit_b32 vit_l16 vit_l32 vit_h14 deit_ti16 deit_s16 deit_b16 " + (
        "deit_ti16_distilled deit_s16_distilled deit_b16_distilled mae_vit_b16 mae_vit_l16 mae_vit_h14"
    )
    assert {row[0] for row in rows} >= set(expected.split())
    (base,) = (row for row in rows if row[0] == "vit_b16")
    assert base[1:6] == ["16", "768", "12", "12", "197"] and base[6:8] == ["17.56", "G"]


def test_doctor_names_the_engines_and_their_versions(tmp_path):
    import onnxruntime

    done = run(["doctor"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"runtime +paddle +ok +{re.escape(paddle.__version__)}", done.stdout)
    assert re.search(rf"runtime +onnx +ok +{re.escape(onnxruntime.__version__)}", done.stdout)


def test_no_arguments_show_the_help(tmp_path):
    for arguments in ([], ["--help"], ["-h"]):
        done = run(arguments, tmp_path)
        assert done.returncode == 0 and "tome-export --model vit_b16 --r 16 --out ./infer" in done.stdout
    for command in ("predict", "visualize", "verify", "inspect", "models", "doctor"):
        assert command in done.stdout


# ---------------------------------------------------------------- bad input

MODEL = ("--model", "vit_ti16", "--image-size", "64")
EXPORT = (*MODEL, "--out", "out")
WEIGHTS = (*EXPORT, "--num-classes", "7", "--weights")

BAD = {
    "no-model": (["--out", "out"], "--model is needed"),
    "no-out": ([*MODEL], "--out is needed"),
    "unknown-model": (["--model", "vit_b61", "--out", "out"], "'vit_b61'; did you mean vit_b16"),
    "unknown-model-like-nothing": (["--model", "zzz", "--out", "out"], "tome-export models"),
    "negative-r": ([*EXPORT, "--r", "-1"], "-1"),
    "negative-r-in-list": ([*EXPORT, "--r", "4,-4"], "-4"),
    "wordy-r": ([*EXPORT, "--r", "many"], "'many' is not a whole number"),
    "fractional-r": ([*EXPORT, "--r", "1.5"], "'1.5' is not a whole number"),
    "empty-r": ([*EXPORT, "--r", ""], "is not a whole number"),
    "long-list": ([*EXPORT, "--r", ",".join("1" * 13)], "12"),
    "inflect-too-far": ([*EXPORT, "--r", "2", "--inflect", "-2"], "-2"),
    "inflect-nan": ([*EXPORT, "--r", "2", "--inflect", "nan"], "nan"),
    "inflect-word": ([*EXPORT, "--inflect", "down"], "'--inflect'"),
    "inflect-list": ([*EXPORT, "--r", "2,2", "--inflect", "-1"], "single r"),
    "image-size": (["--model", "vit_ti16", "--image-size", "100", "--out", "out"], "100 is not a multiple"),
    "image-size-zero": (["--model", "vit_ti16", "--image-size", "0", "--out", "out"], "image_size"),
    "image-size-word": (["--model", "vit_ti16", "--image-size", "big", "--out", "out"], "'--image-size'"),
    "classes": ([*EXPORT, "--num-classes", "0"], "num_classes"),
    "format": ([*EXPORT, "--formats", "paddle,tensorrt"], "tensorrt"),
    "format-empty": ([*EXPORT, "--formats", ""], "choose from paddle, onnx"),
    "output": ([*EXPORT, "--outputs", "logits,size"], "size"),
    "opset": ([*EXPORT, "--opset", "7"], "opset 7"),
    "seed": ([*EXPORT, "--seed", "-5"], "-5"),
    "labels-missing": ([*EXPORT, "--labels", "nowhere.txt"], "nowhere.txt"),
    "labels-count": ([*EXPORT, "--labels", "file"], "1 labels for 1000 classes"),
    "unknown-option": ([*EXPORT, "--rr", "4"], "--rr"),
    "unknown-command": (["expotr"], "expotr"),
    "out-exists": ([*MODEL, "--out", "bundle"], "bundle: already exists; add --force"),
    "out-is-a-file": ([*MODEL, "--out", "file"], "file: is a file"),
    "out-is-a-file-force": ([*MODEL, "--out", "file", "--force"], "file: is a file"),
    "out-below-a-file": ([*MODEL, "--out", "file/out"], "file/out"),
    "out-not-a-bundle": ([*MODEL, "--out", "folder", "--force"], "is not an exported bundle"),
    "out-is-here": ([*MODEL, "--out", ".", "--force"], "."),
    "out-empty": ([*MODEL, "--out", ""], "choose another"),
    "out-unwritable": ([*MODEL, "--out", "/proc/tome/out"], "/proc/tome"),
    "weights-missing": ([*WEIGHTS, "{weights}/none.pdparams"], "none.pdparams"),
    "weights-cut": ([*WEIGHTS, "{weights}/cut.pdparams"], "cut.pdparams"),
    "weights-empty": ([*WEIGHTS, "{weights}/empty.pdparams"], "empty.pdparams"),
    "weights-text": ([*WEIGHTS, "{weights}/text.pdparams"], "text.pdparams"),
    "weights-folder": ([*WEIGHTS, "{weights}/folder.pdparams"], "folder.pdparams"),
    "weights-of-another-model": ([*WEIGHTS, "{weights}/other.pdparams"], "deit_ti16_distilled"),
    "predict-no-bundle": (["predict", "folder", "photo.jpg"], "folder: not an exported bundle"),
    "predict-nowhere": (["predict", "nowhere", "photo.jpg"], "nowhere: no such bundle"),
    "predict-no-photo": (["predict", "bundle", "nophoto.jpg"], "nophoto.jpg: no such file"),
    "predict-broken-photo": (["predict", "bundle", "broken.jpg"], "broken.jpg: "),
    "predict-not-a-photo": (["predict", "bundle", "file"], "file: not an image"),
    "predict-runtime": (["predict", "bundle", "photo.jpg", "--runtime", "tvm"], "no runtime 'tvm'"),
    "predict-top": (["predict", "bundle", "photo.jpg", "--top", "0"], "'--top'"),
    "verify-changed": (["verify", "changed"], "inference.onnx changed"),
    "verify-file": (["verify", "file"], "file: is a file"),
    "verify-against": (["verify", "changed", "--against", "torch"], "no reference 'torch'"),
    "verify-batch": (["verify", "changed", "--batch", "1,two"], "not a list of batch sizes"),
    "verify-images": (["verify", "changed", "--images", "nowhere"], "no such folder of images"),
    "inspect-damaged": (["inspect", "damaged"], "manifest.json"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad(tmp_path_factory, weights, small_bundles, photos):
    """What each bad command answered, and its folder before and after."""
    bundle = small_bundles["small_vit", "r8"]

    def prepare(name):
        folder = tmp_path_factory.mktemp(name, numbered=False)
        (folder / "file").write_text("precious")
        (folder / "folder").mkdir()
        (folder / "folder" / "keep.txt").write_text("precious")
        shutil.copytree(bundle.path, folder / "bundle")
        if name.startswith("predict"):
            photos[1].save(folder / "photo.jpg")
            (folder / "broken.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:3000])
        if name.startswith(("verify", "inspect")):
            make_bad_bundles(bundle, folder)
        return folder

    folders = {name: prepare(name) for name in BAD}
    before = {name: listing(folder) for name, folder in folders.items()}
    commands = {name: [each.format(weights=weights) for each in BAD[name][0]] for name in BAD}
    alone = ("unknown-model", "weights-cut")
    done = {name: run(commands[name], folders[name]) for name in alone}
    done |= run_forked({name: (commands[name], folders[name]) for name in BAD if name not in alone})
    return {name: (done[name], before[name], listing(folders[name])) for name in BAD}


FORKED = """
import gc, json, os, sys
from tome_export import cli
from tome_export.quiet import quiet
with quiet():
    import onnxruntime, paddle
    import tome_export.evaluation, tome_export.pipeline, tome_export.parity.verify, tome_export.predict
gc.freeze()
for arguments, folder, out, err in json.load(sys.stdin):
    if os.fork() == 0:
        os.chdir(folder)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
        sys.argv = ["tome-export", *arguments]
        status = 99
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def run_forked(commands):
    """Run commands that start no engine, each in a fork of one process that has imported all they use."""
    with tempfile.TemporaryDirectory() as place:
        files = {name: [f"{place}/{name}.out", f"{place}/{name}.err"] for name in commands}
        jobs = [[command, str(folder), *files[name]] for name, (command, folder) in commands.items()]
        child = subprocess.run(
            [sys.executable, "-c", FORKED],
            input=json.dumps(jobs),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        answers = {}
        for (name, (command, _)), status in zip(commands.items(), child.stdout.split(), strict=True):
            stdout, stderr = (Path(file).read_text(encoding="utf-8") for file in files[name])
            answers[name] = subprocess.CompletedProcess(command, int(status), stdout, stderr)
        return answers


def make_bad_bundles(bundle, folder):
    for name in ("changed", "damaged"):
        shutil.copytree(bundle.path, folder / name)
    data = bytearray((folder / "changed" / "inference.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "changed" / "inference.onnx").write_bytes(data)
    text = (folder / "damaged" / "manifest.json").read_text()
    (folder / "damaged" / "manifest.json").write_text(text[: len(text) // 2])


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(name, bad):
    done, before, after = bad[name]
    line = one_line(done)
    assert BAD[name][1] in line
    assert done.returncode == 2, line
    assert len(line) < 500
    assert after == before
    if not name.startswith("verify"):  # which shows that it hashes
        assert done.stdout == ""


def test_debug_adds_the_traceback_and_keeps_the_line(tmp_path):
    done = run([*MODEL, "--r", "-1", "--out", "out", "--debug"], tmp_path)
    assert done.returncode == 2 and listing(tmp_path) == {}
    assert "Traceback (most recent call last)" in done.stderr and "ScheduleError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


# ---------------------------------------------------------------- failures, and being stopped

TAMPERED = """
import sys
from tome_export import cli
from tome_export.quiet import quiet
with quiet():
    from tome_export import trace
save = trace.save_inference_model
def save_and_damage(model, outputs, image_size, folder, *rest):
    save(model, outputs, image_size, folder, *rest)
    path = folder / "inference.pdiparams"
    value = model.blocks[5].mlp.fc2.weight.numpy()
    assert path.read_bytes().count(value.tobytes()) == 1
    path.write_bytes(path.read_bytes().replace(value.tobytes(), (-value).tobytes()))
trace.save_inference_model = save_and_damage
sys.argv[0] = "tome-export"
cli.main()
"""


def test_an_artifact_that_is_wrong_ends_in_one_line_and_status_1(child, tmp_path):
    done = child(TAMPERED, *MODEL, "--formats", "paddle", "--out", "out", cwd=tmp_path)
    line = one_line(done)
    assert re.fullmatch(
        r"paddle against dygraph: block 5, mlp: differs by [\d.e-]+ of the largest value, "
        r"[\d.e-]+ allowed, given the same input \(on photo:0\)",
        line,
    )
    assert done.returncode == 1 and listing(tmp_path) == {}
    assert "next" not in done.stdout and "total" not in done.stdout


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)


def unfinished(folder):
    return [path for path in folder.iterdir() if ".partial-" in path.name]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["kill", "ctrl-c", "terminate"],
)
def test_an_export_that_is_stopped_leaves_the_old_bundle(number, status, tmp_path, small_bundles):
    old = small_bundles["small_vit", "r8"]
    shutil.copytree(old.path, tmp_path / "out")
    before = listing(tmp_path)
    process = start([*EXPORT, "--r", "0", "--force"], tmp_path, start_new_session=True)
    # In the middle: the Paddle model is there, the ONNX model is not.
    wait_for(lambda: any((path / "inference.pdiparams").exists() for path in unfinished(tmp_path)), process)
    os.killpg(process.pid, number)  # the converter too, as Ctrl-C on a terminal does
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    if number == signal.SIGINT:
        assert stderr == "error: interrupted; nothing was written\n"
    else:
        assert stderr == ""
    assert "next" not in stdout
    if number == signal.SIGKILL:
        assert unfinished(tmp_path)  # nobody could clear up; the next export does, though it fails
        done = run([*EXPORT, "--force", "--weights", "none.pdparams"], tmp_path)
        assert done.returncode == 2
    assert listing(tmp_path) == before
    bundle = Bundle.open(tmp_path / "out")
    bundle.verify_hashes()
    assert bundle.manifest == old.manifest
    with open_runtime("onnx", bundle) as runtime:
        assert runtime.run(np.zeros((1, 3, 64, 64), np.float32))["logits"].shape == (1, small.CLASSES)


def on_a_terminal(arguments, folder, meanwhile):
    """(exit status, what a terminal was sent); `meanwhile` is called again and again."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "120"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    while True:
        meanwhile()
        if not select.select([master], [], [], 0.005)[0]:
            continue
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other end is closed
            chunk = b""
        if not chunk:
            os.close(master)
            return process.wait(timeout=60), written.decode()
        written += chunk


def test_force_replaces_a_finished_bundle_when_the_new_one_is_complete(tmp_path, small_bundles):
    """On a terminal, which sees a spinner as well, and of third parties as little as a pipe does."""
    old = small_bundles["small_vit", "r8"]
    shutil.copytree(old.path, tmp_path / "out")
    seen = set()

    def look():
        try:
            seen.add((tmp_path / "out" / "manifest.json").read_bytes())
        except FileNotFoundError:  # between the two renames
            pass

    status, written = on_a_terminal([*EXPORT, "--r", "0", "--formats", "paddle", "--force"], tmp_path, look)
    assert status == 0, written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    new = (tmp_path / "out" / "manifest.json").read_bytes()
    assert (old.path / "manifest.json").read_bytes() in seen
    assert seen <= {(old.path / "manifest.json").read_bytes(), new}
    files = sorted(set(FILES) - {"inference.onnx"})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    assert Bundle.open(tmp_path / "out").manifest.model.name == "vit_ti16"

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n")
    shown = [line.rstrip() for line in text.split("\n") if line.strip()]
    steps = [line for line in shown if re.fullmatch(rf"  .*{SECONDS}.*", line)]
    without_onnx = [step for step in STEPS if "ONNX" not in step]
    assert [line.split("   ")[0].strip() for line in steps[:4]] == without_onnx
    spinner = [line for line in shown if line.endswith(" ...")]
    assert spinner and all(any(title in line for title in STEPS) for line in spinner)
    expected = [pattern for pattern in SUMMARY if pattern] + [
        r".*\.\.\.",
        "out",
        r"  tome-export \w+ out.*",
        "vit_ti16 at 64 px, 17 -> 17 .*",
        r"  runtime  precision  merges that agree  near ties   logits  same merges  allowed",
        r"  paddle   fp32 +none  +0( +\d\.\de[-+]\d\d){3}  ok",
    ]
    for line in shown:
        assert any(re.fullmatch(pattern, line) for pattern in expected), line
