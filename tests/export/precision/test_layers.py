"""Changes to the graph before and after quantisation: the function stays, merging stays in float."""

import numpy as np
import onnx
import pytest

from tome_export.onnx_taps import with_taps
from tome_export.parity.samples import make_sample
from tome_export.precision.layers import METRIC, back_to_float, find_layers, split_metric
from tome_export.runtimes.onnx_runtime import start_session

QUANTISED = {"MatMulInteger", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}
CASES = [("small_vit", "r8"), ("small_deit_distilled", "r16"), ("small_mae", "r16-decreasing")]


def run(model, bundle, name="photo:0", folder=None):
    session = start_session(model.SerializeToString(), folder or bundle.path)
    return session.run(["logits"], {"image": make_sample(name, bundle.manifest.preprocess)[None]})[0]


@pytest.mark.parametrize("case", CASES)
def test_every_linear_layer_of_a_block_is_found_and_no_product_of_the_merge(case, small_bundles):
    model = onnx.load(small_bundles[case].path / "inference.onnx")
    names = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    wanted = [(block, f"blocks.{block}.{name}.weight") for block in range(5) for name in names]
    assert [(layer.block, layer.weight) for layer in find_layers(model)] == wanted


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kept", [(), (0, 3)])
def test_the_split_metric_computes_what_the_folded_one_does(case, kept, small_bundles):
    bundle = small_bundles[case]
    model = onnx.load(bundle.path / "inference.onnx")
    before = run(model, bundle)
    layers = split_metric(model, kept)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, bundle), before, atol=1e-5 * np.ptp(before))
    merging = {index for index, r in enumerate(bundle.manifest.tome.r) if r} - set(kept)
    assert sum(METRIC in node.name and node.op_type == "MatMul" for node in model.graph.node) == len(merging)
    assert {layer.block for layer in layers} == set(range(5)) - set(kept)
    width = bundle.manifest.model.embed_dim
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for block in merging:
        assert shapes[f"blocks.{block}.attn.qkv.weight"] == (width, 3 * width)
        assert shapes[f"blocks.{block}.attn.qkv.metric.weight"] == (width, width // 3)


def test_a_layer_that_a_metric_is_made_of_otherwise_stays_in_float(small_bundles):
    """As in a model that normalises its keys: then the metric is not among the columns."""
    model = onnx.load(small_bundles["small_vit", "r8"].path / "inference.onnx")
    split = next(node for node in model.graph.node if node.op_type == "Split")
    split.op_type = "Other"
    chosen = {layer.weight for layer in split_metric(model)}
    assert "blocks.0.attn.qkv.weight" not in chosen
    assert {"blocks.0.attn.proj.weight", "blocks.1.attn.qkv.weight"} <= chosen


def upstream(model, wanted, stop):
    """Operators that a tensor depends on, back to the tensor `stop`."""
    producer = {name: node for node in model.graph.node for name in node.output}
    found, todo, seen = set(), [wanted], {stop}
    while todo:
        node = producer.get(name := todo.pop())
        if node is not None and name not in seen:
            seen.add(name)
            found.add(node.op_type)
            todo += node.input
    return found


@pytest.mark.parametrize("form", ["dynamic", "static"])
def test_nothing_quantised_lies_between_the_metric_and_the_label(form, int8_bundles):
    bundle = int8_bundles[form]
    model = onnx.load(bundle.path / "inference.int8.onnx")
    merging = [index for index, r in enumerate(bundle.manifest.tome.r) if r]
    assert merging
    for block in merging:
        found = upstream(model, f"block{block}.label", f"block{block}.norm1")
        assert {"MatMul", "LayerNormalization", "TopK"} <= found and not found & QUANTISED
    kinds = {node.op_type for node in model.graph.node}
    assert kinds & QUANTISED  # elsewhere it is
    # And the search can see it: attention weights do come from a quantised layer.
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    assert upstream(model, softmax.output[0], "block0.norm1") & QUANTISED


@pytest.mark.parametrize("form", ["dynamic", "static"])
def test_the_first_merges_are_exactly_those_of_float(form, int8_bundles):
    bundle = int8_bundles[form]
    image = make_sample("photo:1", bundle.manifest.preprocess)[None]
    labels = []
    for name in ("inference.onnx", "inference.int8.onnx"):
        session = start_session(with_taps(bundle.path / name, ["block0.label"]), bundle.path)
        labels.append(session.run(["block0.label"], {"image": image})[0])
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("form", ["dynamic", "static"])
def test_all_blocks_back_in_float_are_the_float_model(form, int8_bundles):
    bundle = int8_bundles[form]
    full = onnx.load(bundle.path / "inference.onnx")
    wanted = run(full, bundle)
    split_metric(full)
    reduced = onnx.load(bundle.path / "inference.int8.onnx")
    errors = [
        float(np.abs(run(back_to_float(reduced, full, blocks), bundle) - wanted).max())
        for blocks in ((), (0, 1), range(5))
    ]
    assert errors[0] > 100 * errors[2] and errors[1] > 100 * errors[2]
    whole = back_to_float(reduced, full, range(5))
    assert not {node.op_type for node in whole.graph.node} & QUANTISED
    half = back_to_float(reduced, full, (0, 1))
    assert {layer.block for layer in find_layers(half)} >= {0, 1}
    read = {name for node in half.graph.node for name in node.input}
    assert {tensor.name for tensor in half.graph.initializer} <= read
