"""A real tritonserver loads the repository, and real clients get from it what the bundle answers."""

import json
import subprocess

import numpy as np
import pytest

from tests.export import small
from tests.export.triton import clients
from tests.export.triton.conftest import LABELS
from tome_export.parity.limits import limits
from tome_export.predict import predict_files
from tome_export.runtimes import open_runtime
from tome_export.triton.repository import write_repository
from tome_export.triton.serving import Serving

LIMIT = limits("fp32", small.DEPTH).logits


def call(python, task, folder, ports=(0, 0)):
    command = [python, clients.__file__, task, *map(str, ports), folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def client(server, tmp_path):
    """task -> the folder with its answers; inputs are put there before."""

    def run(task):
        call(server.python, task, tmp_path, (server.http, server.grpc))
        return tmp_path

    return run


@pytest.fixture(scope="module")
def images(served_bundle, details):
    """Of pictures without near ties, so that the Python model's merges are the only right ones."""
    images = served_bundle.manifest.preprocess.apply(details)
    _, margins = small.answers(small.build("small_vit", 8), images)
    clear = images[margins > 1e-5]
    assert len(clear) >= 16
    return clear


@pytest.fixture(scope="module")
def files(photos, tmp_path_factory):
    """Three photographs as JPEG files, and half of one."""
    folder = tmp_path_factory.mktemp("jpegs")
    paths = [folder / f"{index}.jpg" for index in range(3)]
    for photo, path in zip(photos, paths, strict=True):
        photo.save(path, quality=90)
    half = folder / "half.jpg"
    content = paths[0].read_bytes()
    half.write_bytes(content[: len(content) // 2])
    return [*paths, half]


def test_logits_over_http_and_grpc(client, images, served_bundle, tmp_path):
    np.save(tmp_path / "images.npy", images)
    folder = client("logits")
    with open_runtime("onnx", served_bundle, threads=2) as runtime:
        own = runtime.run(images[:5])
    python, _ = small.answers(small.build("small_vit", 8), images[:5])
    for protocol in ("http", "grpc"):
        for count in (1, 5):
            found = np.load(folder / f"{protocol}-{count}.npz")
            for wanted in (own, python):
                assert small.relative(found["logits"], wanted["logits"][:count]) < LIMIT
                np.testing.assert_array_equal(found["sources"], wanted["sources"][:count])


def test_requests_of_several_clients_run_as_one_batch(client, images, served_bundle, tmp_path):
    images = images[:16]
    np.save(tmp_path / "images.npy", images)
    folder = client("crowd")
    counts = json.loads((folder / "crowd.json").read_text())
    assert counts["inference_count"] == 16 * 4
    assert counts["execution_count"] < counts["inference_count"]
    with open_runtime("onnx", served_bundle, threads=2) as runtime:
        wanted = runtime.run(images)["logits"]
    found = np.load(folder / "crowd.npy")  # [client, turn, class]: each got the answer to its own image
    for turn in range(4):
        assert small.relative(found[:, turn], wanted) < LIMIT


def test_pictures_become_the_labels_that_predict_gives(client, files, served_bundle, tmp_path):
    one, two, three, half = map(str, files)
    requests = [[one], [two], [three], [one, two, three], [half], [one, half, three], [two]]
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    answers = json.loads((client("jpegs") / "answers.json").read_text())
    _, predictions = predict_files(served_bundle.path, files[:3], "onnx", top=5)
    wanted = dict(zip((one, two, three), predictions, strict=True))
    for protocol in ("http", "grpc"):
        for request, answer in zip(requests, answers[protocol], strict=True):
            if half in request:  # that request fails, and those that came with it do not
                place = f"picture {request.index(half) + 1} of {len(request)}"
                assert f"{place}: cannot be read as an image" in answer and "truncated" in answer
                continue
            for row, path in enumerate(request):
                assert answer["labels"][row] == [entry.label for entry in wanted[path]]
                assert answer["classes"][row] == [entry.index for entry in wanted[path]]
                probabilities = [entry.probability for entry in wanted[path]]
                np.testing.assert_allclose(answer["probabilities"][row], probabilities, atol=1e-5)


def test_triton_names_classes_and_refuses_other_shapes(client, images, served_bundle, tmp_path):
    np.save(tmp_path / "images.npy", images[:1])
    found = json.loads((client("named") / "named.json").read_text())
    with open_runtime("onnx", served_bundle, threads=2) as runtime:
        logits = runtime.run(images[:1])["logits"][0]
    best = np.argsort(-logits)[:3]
    assert [row.split(":")[2] for row in found["best"]] == [LABELS[index] for index in best]
    assert "unexpected shape for input 'image'" in found["wrong"]
    config = found["config"]
    assert config["dynamic_batching"]["preferred_batch_size"] == [8]
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert [each["batch_size"] for each in config["model_warmup"]] == [1, 8, 16]


@pytest.mark.parametrize(
    ("serving", "kind"),
    [
        (Serving("vit"), "KIND_CPU"),
        (Serving("vit", gpu=True, instances=2, max_batch=64), "KIND_GPU"),
        (Serving("vit", gpu=True, tensorrt=True, max_batch=64, preferred_batches=(8, 16)), "KIND_GPU"),
    ],
    ids=["cpu", "cuda", "tensorrt"],
)
def test_configurations_are_what_tritons_schema_reads(environment, serving, kind, served_bundle, tmp_path):
    write_repository(served_bundle, tmp_path / "models", serving)
    call(environment / "bin" / "python", "parse", tmp_path / "models")
    found = json.loads((tmp_path / "models" / "parsed.json").read_text())
    assert sorted(found) == ["vit", "vit_jpeg", "vit_postprocess", "vit_preprocess"]
    model = found["vit"]
    assert model["instance_group"] == [{"count": serving.instances, "kind": kind}]
    assert model["dynamic_batching"]["max_queue_delay_microseconds"] == "1000"
    assert model["max_batch_size"] == serving.max_batch
    for name in ("vit_preprocess", "vit_postprocess"):  # they need no GPU
        assert found[name]["instance_group"][0]["kind"] == "KIND_CPU"
    if not serving.tensorrt:
        assert "optimization" not in model
        return
    (accelerator,) = model["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
    assert accelerator["name"] == "tensorrt"
    options = accelerator["parameters"]
    assert options["precision_mode"] == "FP32" and options["trt_engine_cache_enable"] == "1"
    shapes = [options[f"trt_profile_{each}_shapes"] for each in ("min", "opt", "max")]
    assert shapes == ["image:1x3x64x64", "image:16x3x64x64", "image:64x3x64x64"]
