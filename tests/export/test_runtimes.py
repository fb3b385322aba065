"""Every runtime computes what the model computes, keeps to itself, and refuses clearly."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.export import small, tiny
from tome_export.bundle import Bundle
from tome_export.errors import BundleError, MissingExtraError, RequestError
from tome_export.parity.samples import make_sample
from tome_export.parity.verify import verify_bundle
from tome_export.quiet import quiet
from tome_export.runtimes import RUNTIMES, artifact_of, check_made, open_runtime, probe

WAYS = [("paddle", {}), ("paddle", {"onednn": False}), ("onnx", {}), ("openvino", {})]
every_way = pytest.mark.parametrize(
    ("name", "options"), WAYS, ids=["paddle", "paddle-plain", "onnx", "openvino"]
)
HERE = [name for name, engine in RUNTIMES.items() if "cpu" in engine.devices]
every_name = pytest.mark.parametrize("name", HERE)  # the others: tests/export/tensorrt/


@pytest.fixture(scope="module")
def batch(photos, tiny_bundle):
    return tiny_bundle.manifest.preprocess.apply(photos)


@pytest.fixture(scope="module")
def expected(tiny_layer, batch):
    import paddle

    logits, sources = tiny_layer(paddle.to_tensor(batch))
    return {"logits": logits.numpy(), "sources": sources.numpy()}


@every_way
def test_agrees_with_the_model(name, options, tiny_bundle, batch, expected):
    with open_runtime(name, tiny_bundle, threads=2, **options) as runtime:
        assert (runtime.name, runtime.device, runtime.notes) == (name, "cpu", ())
        for rows in (slice(0, 1), slice(0, 3), slice(1, 3)):  # the batch changes between runs
            outputs = runtime.run(batch[rows])
            assert list(outputs) == ["logits", "sources"]
            assert outputs["logits"].dtype == np.float32 and outputs["sources"].dtype == np.int32
            np.testing.assert_allclose(outputs["logits"], expected["logits"][rows], atol=1e-5)
            np.testing.assert_array_equal(outputs["sources"], expected["sources"][rows])


@every_way
def test_results_belong_to_the_caller(name, options, tiny_bundle, batch):
    with open_runtime(name, tiny_bundle, **options) as runtime:
        first = runtime.run(batch[:1])
        kept = {key: value.copy() for key, value in first.items()}
        second = runtime.run(-batch[1:2])
        assert np.abs(second["logits"] - kept["logits"]).max() > 1e-3  # another input, another answer
        for key, value in first.items():
            np.testing.assert_array_equal(value, kept[key])
            assert value.flags.owndata and value.flags.writeable
            value[...] = 0  # and writing to them does no harm
        np.testing.assert_array_equal(runtime.run(batch[:1])["logits"], kept["logits"])
    assert np.isfinite(second["logits"]).all()  # readable after the engine has gone


@every_way
def test_any_memory_layout_and_no_change_to_the_input(name, options, tiny_bundle, batch):
    strided = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    backwards = batch[::-1]
    read_only = batch.copy()
    read_only.flags.writeable = False
    with open_runtime(name, tiny_bundle, **options) as runtime:
        straight = runtime.run(batch)["logits"]
        np.testing.assert_array_equal(runtime.run(strided)["logits"], straight)
        np.testing.assert_allclose(runtime.run(backwards)["logits"], straight[::-1], atol=1e-6)
        np.testing.assert_array_equal(runtime.run(read_only)["logits"], straight)
    np.testing.assert_array_equal(strided, batch)


@every_name
@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((1, 3, 32, 32), np.float64), r"is float64 \[1, 3, 32, 32\]; .* float32 \[n, 3, 32, 32\]"),
        (np.zeros((1, 3, 32, 32), ">f4"), "this model takes"),
        (np.zeros((1, 3, 32, 31), np.float32), r"float32 \[1, 3, 32, 31\]"),
        (np.zeros((1, 32, 32, 3), np.float32), r"\[1, 32, 32, 3\]"),
        (np.zeros((3, 32, 32), np.float32), r"\[3, 32, 32\]"),
        (np.array(1, np.float32), r"float32 \[\]"),
        (np.zeros((0, 3, 32, 32), np.float32), "empty batch"),
        ([[1.0]], "is a list; pass a numpy array"),
    ],
)
def test_wrong_inputs_are_refused(name, image, told, tiny_bundle):
    with open_runtime(name, tiny_bundle) as runtime, pytest.raises(RequestError, match=told):
        runtime.run(image)


@every_name
def test_closing(name, tiny_bundle, batch):
    runtime = open_runtime(name, tiny_bundle)
    other = open_runtime(name, tiny_bundle)
    runtime.close()
    runtime.close()
    with pytest.raises(RequestError, match="closed"):
        runtime.run(batch)
    assert other.run(batch)["logits"].shape == (3, tiny.CLASSES)  # two of them do not share a fate


@every_name
def test_version_is_the_engines(name, tiny_bundle):
    import onnxruntime
    import openvino
    import paddle

    version = {
        "paddle": paddle.__version__,
        "onnx": onnxruntime.__version__,
        "openvino": openvino.__version__.split("-")[0],
    }[name]
    with open_runtime(name, tiny_bundle) as runtime:
        assert runtime.version == version
    found = probe(name)
    assert (found.name, found.usable, found.version) == (name, True, version)
    assert "cpu" in found.detail.lower()


@every_name
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "int8"}, "holds no .* model in int8; it holds paddle fp32, onnx fp32"),
        ({"threads": 0}, "threads should be at least 1"),
        ({"device": "tpu"}, "no device 'tpu'; choose cpu, cuda or cuda:N"),
        ({"device": "cuda:"}, "no device"),
    ],
)
def test_wrong_options_are_refused(name, options, told, tiny_bundle):
    with pytest.raises(RequestError, match=told):
        open_runtime(name, tiny_bundle, **options)


def test_unknown_runtimes_are_refused(tiny_bundle):
    for call in (lambda: open_runtime("tvm", tiny_bundle), lambda: probe("tvm")):
        with pytest.raises(RequestError, match="no runtime 'tvm'; choose one of paddle, onnx, openvino"):
            call()


@every_name
def test_cuda_is_refused_rather_than_replaced(name, tiny_bundle):
    import onnxruntime
    import paddle

    if paddle.is_compiled_with_cuda() or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this environment has a CUDA build")
    with pytest.raises(RequestError, match="no cuda:1; use --device cpu"):
        open_runtime(name, tiny_bundle, device="cuda:1")


@every_name
def test_damaged_and_missing_files(name, tiny_bundle, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(tiny_bundle.path, path)
    bundle = Bundle.open(path)
    victim = path / {"paddle": "inference.json"}.get(name, "inference.onnx")
    victim.write_bytes(victim.read_bytes()[:700])
    with quiet(), pytest.raises(BundleError, match=f"cannot .* {victim.name} ") as caught:
        open_runtime(name, bundle)
    assert "\n" not in str(caught.value)
    victim.unlink()
    with pytest.raises(BundleError, match=f"{victim.name}: missing"):
        open_runtime(name, bundle)


@every_name
def test_a_manifest_of_another_model(name, tiny_bundle):
    manifest = dataclasses.replace(tiny_bundle.manifest, outputs=tiny_bundle.manifest.outputs[:1])
    with pytest.raises(BundleError, match="has 2 outputs and the manifest names 1"):
        open_runtime(name, Bundle(tiny_bundle.path, manifest))


def test_paddle_falls_back_when_onednn_cannot_run_the_graph(tiny_bundle, tmp_path, batch):
    # Paddle 3.3's oneDNN rejects interpolation's list of scales, and only when the graph first runs.
    import paddle
    from paddle import nn

    class Enlarge(nn.Layer):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, tiny.CLASSES)

        def forward(self, image):
            image = nn.functional.interpolate(image, scale_factor=2.0, mode="bilinear")
            return self.head(image.mean([2, 3])), image[:, :, 0, 0].astype("int32")

    layer = Enlarge()
    layer.eval()
    with quiet():
        spec = [paddle.static.InputSpec([-1, 3, 32, 32], "float32", name="image")]
        static = paddle.jit.to_static(layer, input_spec=spec, full_graph=True)
        paddle.jit.save(static, str(tmp_path / "inference"))
        with open_runtime("paddle", Bundle(tmp_path, tiny_bundle.manifest)) as runtime:
            outputs = runtime.run(batch)
    np.testing.assert_allclose(outputs["logits"], layer(paddle.to_tensor(batch))[0].numpy(), atol=1e-5)
    if runtime.notes:  # a Paddle that can do it has nothing to note
        assert len(runtime.notes) == 1 and "oneDNN cannot run this graph" in runtime.notes[0]
        assert "\n" not in runtime.notes[0]
    else:
        assert not paddle.__version__.startswith("3.3.")


@every_name
def test_a_missing_engine_names_the_extra(name, tiny_bundle, bare_child):
    extra = {"paddle": "cpu", "onnx": "onnx", "openvino": "openvino"}[name]
    code = f"""
from tome_export.bundle import Bundle
from tome_export.errors import MissingExtraError
from tome_export.runtimes import open_runtime, probe
import sys
found = probe({name!r})
assert not found.usable and found.version is None, found
try:
    open_runtime({name!r}, Bundle.open(sys.argv[1]))
except MissingExtraError as error:
    assert str(error) == found.detail
    print(error)
"""
    done = bare_child(code, tiny_bundle.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f'is not installed: pip install "tome-export[{extra}]"')
    assert issubclass(MissingExtraError, RequestError)


def test_importing_the_package_imports_no_engine(child):
    done = child("""
import sys
import tome_export.bundle, tome_export.doctor, tome_export.manifest, tome_export.preprocess, tome_export.quiet
import tome_export.runtimes.onnx_runtime, tome_export.runtimes.paddle_inference
import tome_export.runtimes.openvino_runtime, tome_export.runtimes.tensorrt_runtime
import tome_export.runtimes.onnx_tensorrt
engines = {"paddle", "onnxruntime", "onnx", "openvino", "paddle2onnx", "tensorrt", "cuda.bindings", "ray"}
engines |= {"tome_core.zoo"}
print(sorted(engines & set(sys.modules)))
""")
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def _has_bf16():
    import paddle

    return paddle.base.core.supports_bfloat16_fast_performance()


def test_paddle_makes_bf16_of_the_fp32_model_on_onednn_only(small_bundles):
    """Within bf16's limits and outside fp32's; or refused."""
    bundle = small_bundles["small_vit", "r8"]
    assert artifact_of("paddle", bundle, "bf16") is bundle.artifact("paddle")
    with pytest.raises(RequestError, match="Paddle's bf16 is oneDNN's, on the CPU; use --precision fp32"):
        open_runtime("paddle", bundle, precision="bf16", onednn=False)
    if not _has_bf16():
        with pytest.raises(RequestError, match="no bf16 that oneDNN can use; use --precision fp32"):
            open_runtime("paddle", bundle, precision="bf16")
        return
    with quiet():
        found = verify_bundle(bundle.path, against="onnx", samples=5, runtimes=["paddle:bf16"])
    assert found.passed
    assert 1e-4 < found.results[0].forced.max_rel < 0.1


@pytest.mark.skipif(not _has_bf16(), reason="this processor has no bf16")
def test_paddles_bf16_is_refused_where_it_cannot_count_what_merges(small_bundles):
    manifest = small_bundles["small_vit", "r8"].manifest
    check_made("paddle", "bf16", small.merging_at_once(manifest, 256))
    with pytest.raises(RequestError, match="merges 257 tokens in a block; use --precision fp32"):
        check_made("paddle", "bf16", small.merging_at_once(manifest, 257))


@every_way
@pytest.mark.parametrize("model", ["small_vit", "small_deit_distilled", "small_mae"])
def test_an_image_of_nan_spoils_no_other(model, name, options, small_bundles):
    """It has no answer; those beside it in the batch have theirs."""
    bundle = small_bundles[model, "r16-decreasing"]
    batch = np.stack([make_sample(f"photo:{index}", bundle.manifest.preprocess) for index in range(3)])
    with open_runtime(name, bundle, **options) as runtime:
        wanted = runtime.run(batch)["logits"]
        batch[1] = np.nan
        found = runtime.run(batch)["logits"]
    assert not np.isfinite(found[1]).any()
    np.testing.assert_allclose(found[::2], wanted[::2], atol=1e-5)


def test_vnni_is_read_off_cpuinfo():
    from tome_export.runtimes.onnx_runtime import has_vnni

    assert has_vnni("model name\t: x\nflags\t\t: fpu avx512_vnni amx_int8\n")
    assert has_vnni("flags\t\t: fpu avx_vnni\n")
    assert not has_vnni("flags\t\t: fpu avx512f\nvmx flags\t: avx512_vnni_not\n") and not has_vnni("")


@pytest.mark.parametrize("known", [True, False])
def test_the_slow_exact_int8_product_is_asked_for_only_without_vnni(small_bundles, monkeypatch, known):
    from tome_export.runtimes import onnx_runtime

    text = "flags\t\t: avx_vnni\n" if known else ""
    monkeypatch.setattr(onnx_runtime, "_cpuinfo", lambda: text)
    seen = []
    bundle = small_bundles["small_vit", "r8"]
    path = bundle.file(bundle.artifact("onnx"), ".onnx")
    onnx_runtime.start_session(path, path.parent, configure=seen.append)
    try:
        asked = seen[0].get_session_config_entry(onnx_runtime.EXACT_INT8)
    except RuntimeError:  # never set
        asked = "0"
    assert asked == ("0" if known else "1")
