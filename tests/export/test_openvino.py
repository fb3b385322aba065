"""OpenVINO on bundles that the pipeline made: against the Python model, and held to parity, part by part."""

import numpy as np
import pytest

from tests.export import small
from tome_export.errors import BundleError, RequestError
from tome_export.parity.verify import pairs_of, verify_bundle
from tome_export.quiet import quiet
from tome_export.runtimes import artifact_of, check_made, open_runtime

CASES = [
    ("small_vit", "r8"),
    ("small_vit", "r16-decreasing"),
    ("small_deit_distilled", "r8"),
    ("small_mae", "r16-decreasing"),
]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_agrees_with_the_model(case, small_bundles, details):
    bundle = small_bundles[case]
    images = bundle.manifest.preprocess.apply(details)
    wanted, margins = small.answers(small.build(case[0], small.SCHEDULES[case[1]]), images)
    clear = np.flatnonzero(margins > 1e-5)
    assert len(clear) >= 10
    with open_runtime("openvino", bundle, threads=2) as runtime:
        for rows in (clear[:1], clear[:7], clear[7:9]):  # the batch changes, then shrinks
            found = runtime.run(images[rows])
            assert small.relative(found["logits"], wanted["logits"][rows]) < 1e-5
            np.testing.assert_array_equal(found["sources"], wanted["sources"][rows])


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_parity_finds_nothing(case, small_bundles):
    with quiet():
        found = verify_bundle(
            small_bundles[case].path, against="onnx", samples=5, runtimes=["onnx", "openvino"]
        )
    (result,) = found.results  # the reference is not judged against itself
    assert (result.runtime, result.precision, result.against) == ("openvino", "fp32", "onnx")
    assert found.passed and result.decisions > 0 and not result.findings
    assert result.max_rel < 1e-5  # fp32 where it was asked for: bf16 is a thousand times coarser


def test_taps_are_those_of_onnx_runtime(small_bundles, details):
    bundle = small_bundles["small_vit", "r8"]
    images = bundle.manifest.preprocess.apply(details[:3])
    with (
        open_runtime("openvino", bundle, taps=True) as runtime,
        open_runtime("onnx", bundle, taps=True) as other,
    ):
        found, wanted = runtime.run(images), other.run(images)
    assert list(found) == list(wanted) and len(found) == 2 + len(bundle.taps)
    for name, value in wanted.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        np.testing.assert_allclose(found[name], value, atol=1e-4)


def _has_bf16():
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_bf16(small_bundles):
    """Of the fp32 artifact, within bf16's limits and outside fp32's; or refused."""
    bundle = small_bundles["small_vit", "r8"]
    assert artifact_of("openvino", bundle, "bf16") is bundle.artifact("onnx")
    with pytest.raises(BundleError, match="holds no onnx model in bf16"):
        artifact_of("onnx", bundle, "bf16")
    if not _has_bf16():
        with pytest.raises(RequestError, match="no bf16; use --precision fp32"):
            open_runtime("openvino", bundle, precision="bf16")
        return
    with quiet():
        found = verify_bundle(bundle.path, against="onnx", samples=5, runtimes=["openvino:bf16"])
    assert found.passed
    assert 1e-4 < found.results[0].forced.max_rel < 0.1


@pytest.mark.skipif(not _has_bf16(), reason="this processor has no bf16")
def test_bf16_is_refused_where_it_cannot_count_what_merges(small_bundles):
    manifest = small_bundles["small_vit", "r8"].manifest
    check_made("openvino", "bf16", small.merging_at_once(manifest, 256))
    with pytest.raises(RequestError, match="merges 257 tokens in a block; use --precision fp32"):
        check_made("openvino", "bf16", small.merging_at_once(manifest, 257))


def test_what_is_judged(small_bundles):
    bundle = small_bundles["small_vit", "r8"]
    assert pairs_of(bundle) == (("paddle", "fp32"), ("onnx", "fp32"))
    asked = ["openvino:bf16", "openvino", "onnx:fp32", "onnx"]
    assert pairs_of(bundle, asked) == (("openvino", "bf16"), ("openvino", "fp32"), ("onnx", "fp32"))
    for wrong, told in {
        "tvm": "no runtime 'tvm'",
        "onnx:fp16": "holds no onnx model in fp16",
    }.items():
        with pytest.raises(RequestError, match=told):
            pairs_of(bundle, [wrong])
    with pytest.raises(RequestError, match="openvino fp32 cannot be told what to merge"):
        verify_bundle(bundle.path, against="paddle", samples=1, runtimes=["openvino"])
