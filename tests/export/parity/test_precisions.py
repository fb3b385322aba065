"""A reduced precision is judged by the same report: an int8 model made by ONNX Runtime's own quantizer."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tests.export import small
from tome_export.bundle import Bundle, sha256_of
from tome_export.manifest import Artifact
from tome_export.parity.rebuild import rebuild
from tome_export.parity.verify import verify_bundle
from tome_export.quiet import quiet


def add_int8(bundle, change=lambda graph: None):
    """A dynamically quantised twin of the ONNX model; `change` is made to it before."""
    from onnxruntime import quantization

    source, target = bundle.path / "changed.onnx", bundle.path / "inference.int8.onnx"
    model = onnx.load(bundle.path / "inference.onnx")
    change(model.graph)
    onnx.save(model, source)
    layers = [
        node.name for node in model.graph.node if node.op_type == "MatMul" and ".weight" in node.input[1]
    ]
    with quiet():
        quantization.quantize_dynamic(str(source), str(target), per_channel=True, nodes_to_quantize=layers)
    source.unlink()
    artifact = Artifact("onnx", "int8", {target.name: sha256_of(target)}, opset=17)
    manifest = replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, artifact))
    (bundle.path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.open(bundle.path)


@pytest.fixture
def copy(small_bundles, tmp_path):
    shutil.copytree(small_bundles["small_deit", "r8"].path, tmp_path / "copy")
    return Bundle.open(tmp_path / "copy")


@pytest.mark.parametrize("against", ["dygraph", "paddle", "onnx"])
def test_int8_is_judged_like_any_other(against, copy):
    bundle = add_int8(copy)
    with quiet(), small.registered():
        found = verify_bundle(bundle.path, against=against, samples=5, batch_sizes=(1,), rebuild=rebuild)
    result = found.results[-1]
    assert (result.runtime, result.precision, result.passed) == ("onnx", "int8", True), result.findings
    full = found.results[0]
    assert full.precision == "fp32" and full.passed
    # It is much less exact, and its figures say so: hundreds of times the error, and merges that differ.
    assert result.forced.max_rel > 100 * full.forced.max_rel
    assert result.near_ties > full.near_ties and result.merge_agreement < 1
    assert all(block.faults == 0 and block.noise > 1e-4 for block in result.blocks if block.r)
    assert result.forced.max_rel < result.max_rel  # once the merges are the same, little is left


def test_a_fault_shows_through_the_noise_of_int8(copy):
    def transposed(graph):
        (tensor,) = (each for each in graph.initializer if each.name == "blocks.3.attn.proj.weight")
        value = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor).T)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))

    bundle = add_int8(copy, transposed)
    with quiet(), small.registered():
        found = verify_bundle(bundle.path, samples=2, batch_sizes=(1,), rebuild=rebuild)
    *others, result = found.results
    assert all(other.passed for other in others) and not result.passed
    assert {(finding.part, finding.block) for finding in result.findings} == {("attention", 3)}
