"""What is missing is said in one line, by the real packages that are here."""

import dataclasses

import pytest

from tests.export.test_cli import one_line, run
from tome_export.bundle import Bundle
from tome_export.errors import BundleError, MissingExtraError, RequestError
from tome_export.parity.verify import pairs_of
from tome_export.runtimes import check_made, open_runtime, probe
from tome_export.tensorrt import cache
from tome_export.tensorrt.engine import Graph, Profile, graph_of
from tome_export.tensorrt.gpu import Gpu

INSTALL = 'pip install "tome-export[tensorrt]"'


def tensorrt_is_here():
    try:
        import tensorrt
    except ImportError:
        return False
    return bool(tensorrt)


without_tensorrt = pytest.mark.skipif(tensorrt_is_here(), reason="TensorRT is installed")


@without_tensorrt
def test_tensorrt_is_not_installed(tiny_bundle):
    told = f"the tensorrt package is not installed: {INSTALL}"
    assert (probe("tensorrt").usable, probe("tensorrt").detail) == (False, told)
    for device in ("cpu", "cuda", "cuda:1"):
        with pytest.raises(MissingExtraError) as caught:
            open_runtime("tensorrt", tiny_bundle, device=device)
        assert str(caught.value) == told


def test_onnx_runtime_without_tensorrt(tiny_bundle):
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has TensorRT")
    told = "this ONNX Runtime has no TensorRT: pip uninstall onnxruntime, then pip install"
    assert not probe("onnx-tensorrt").usable and probe("onnx-tensorrt").detail.startswith(told)
    for device in ("cpu", "cuda"):
        with pytest.raises(RequestError, match=told):
            open_runtime("onnx-tensorrt", tiny_bundle, device=device)


def test_no_gpu(tiny_bundle):
    """With NVIDIA's own bindings, which say so themselves."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    from cuda.bindings import runtime

    from tome_export.tensorrt.gpu import Cuda

    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU")
    with pytest.raises(RequestError, match="no GPU can be used here .*CUDA"):
        Cuda(0)


@pytest.mark.parametrize("name", ["tensorrt", "onnx-tensorrt"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"threads": 0}, "threads should be at least 1"),
        ({"precision": "fp16"}, "holds no onnx model in fp16"),
    ],
)
def test_wrong_options(name, options, told, tiny_bundle):
    with pytest.raises(RequestError, match=told):
        open_runtime(name, tiny_bundle, **({"device": "cuda"} | options))


@without_tensorrt
def test_the_command(tiny_bundle, tmp_path):
    for arguments, told in (
        ((), f"the tensorrt package is not installed: {INSTALL}"),
        (("--precision", "fp16"), "export again with --precision fp16"),
        (("--precision", "int8"), "int8 model, which is made for CPUs"),
        (("--min-batch", "9"), "--min-batch 9, --opt-batch 8 and --max-batch 64 should not fall"),
    ):
        done = run(["build-engine", tiny_bundle.path, *arguments], tmp_path)
        assert done.returncode == 2 and told in one_line(done)


def test_paddle_makes_fp16_on_gpus(tiny_bundle):
    import paddle

    if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        pytest.skip("Paddle sees a GPU")
    for device, told in (
        ("cpu", "Paddle makes fp16 on GPUs only; use --device cuda, or --precision fp32"),
        ("cuda", "Paddle sees 0 GPUs, so there is no cuda"),
    ):
        with pytest.raises(RequestError, match=told):
            open_runtime("paddle", tiny_bundle, precision="fp16", device=device)
    with pytest.raises(RequestError, match="Paddle makes fp16 on GPUs, and sees none"):
        check_made("paddle", "fp16", tiny_bundle.manifest)


@pytest.mark.parametrize("name", ["tensorrt", "onnx-tensorrt"])
def test_int8_models_are_made_for_cpus(name, tiny_bundle):
    int8 = dataclasses.replace(tiny_bundle.artifact("onnx"), precision="int8")
    manifest = dataclasses.replace(tiny_bundle.manifest, artifacts=(*tiny_bundle.manifest.artifacts, int8))
    bundle = Bundle(tiny_bundle.path, manifest)
    assert pairs_of(bundle, [name, "onnx"]) == ((name, "fp32"), ("onnx", "fp32"), ("onnx", "int8"))
    told = f"{name} cannot run the bundle's int8 model, which is made for CPUs"
    with pytest.raises(BundleError, match=told):
        pairs_of(bundle, [f"{name}:int8"])
    with pytest.raises(BundleError, match=told):
        open_runtime(name, bundle, precision="int8", device="cuda")


def test_engines_are_kept_by_what_they_were_built_of(tmp_path, monkeypatch):
    monkeypatch.setenv("TOME_EXPORT_CACHE", str(tmp_path))
    graph, gpu = Graph(tmp_path / "a.onnx", None, "1" * 64), Gpu(0, "NVIDIA L4", "8.9")
    built = []

    def engine(graph=graph, gpu=gpu, version="10.13", profile=None):
        def make(asked):
            built.append(asked)
            return f"plan {len(built)}".encode()

        found, new = cache.engine_of(graph, gpu, version, profile, make)
        assert found.profile == (profile or found.profile)
        return found.path.read_bytes(), new

    assert engine() == (b"plan 1", True) and built == [Profile(1, 8, 64)]
    assert engine() == (b"plan 1", False)
    assert engine(gpu=Gpu(1, "NVIDIA L4", "8.9")) == (b"plan 1", False)  # another of the same kind
    assert engine(gpu=Gpu(0, "NVIDIA A10", "8.6")) == (b"plan 2", True)
    assert engine(version="10.14") == (b"plan 3", True)
    assert engine(graph=Graph(graph.path, None, "2" * 64)) == (b"plan 4", True)
    assert engine(profile=Profile(1, 1, 4)) == (b"plan 5", True)  # in place of the first
    assert engine() == engine(profile=Profile(1, 1, 4)) == (b"plan 5", False)
    folder = cache.engine_folder(graph, gpu, "10.13")
    (folder / cache.PLAN).write_bytes(b"cut")  # the disk was full, say
    assert engine() == (b"plan 6", True)
    (folder / cache.ABOUT).write_text("{}")
    assert engine() == (b"plan 7", True)


def test_the_hash_is_of_all_that_shapes_the_engine(small_bundles):
    graphs = [
        graph_of(small_bundles["small_vit", "r8"], "fp32"),
        graph_of(small_bundles["small_vit", "r16"], "fp32"),
        graph_of(small_bundles["small_vit", "r8"], "fp32", taps=True),
    ]
    assert len({graph.sha256 for graph in graphs}) == 3
    assert graph_of(small_bundles["small_vit", "r8"], "fp32") == graphs[0]
