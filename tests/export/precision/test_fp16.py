"""fp16: what is float16 in the graph and what is not, numbers out of its range, the gate, other models."""

import numpy as np
import onnx
import pytest

from examples.digits import data, train
from tests import foreign_models
from tests.export import small
from tests.export.precision.models import out_of_range, overflowing
from tests.tiny_models import randomise
from tome_export import export, lint
from tome_export.errors import AccuracyError, ConversionError
from tome_export.onnx_taps import with_taps
from tome_export.parity.samples import make_sample
from tome_export.precision.half import LARGEST, to_half
from tome_export.quiet import quiet
from tome_export.runtimes.onnx_runtime import start_session

FP16 = {"preprocess": data.PRESET, "labels": data.CLASSES, "precisions": ("fp32", "fp16")}
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
FLOAT_ONLY = ("LayerNormalization", "Softmax", "TopK", "ReduceMax", "ReduceSum", "ArgMax", "Log", "Conv")


def types(model):
    """Every tensor's element type, inferred anew."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True).graph
    found = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer} | {"image": FLOAT}


@pytest.fixture(scope="module", params=["small_vit", "small_deit_distilled"])
def full(request, small_bundles):
    return small_bundles[request.param, "r8"]


def halved(bundle, kept=()):
    model = onnx.load(bundle.path / "inference.onnx")
    layers = to_half(model, kept)
    onnx.checker.check_model(model, full_check=True)
    return model, layers


@pytest.mark.parametrize("kept", [(), (0, 3)])
def test_products_are_float16_and_what_decides_is_not(kept, full):
    model, layers = halved(full, kept)
    kinds = types(model)
    assert {layer.block for layer in layers} == set(range(small.DEPTH)) - set(kept)
    assert len(layers) == 4 * (small.DEPTH - len(kept))
    for layer in layers:
        assert kinds[layer.weight] == kinds[layer.output] == HALF
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type in (FLOAT, onnx.TensorProto.INT32)
    for name in full.taps:
        assert kinds[name] == (onnx.TensorProto.INT64 if name.endswith(".label") else FLOAT), name
    recorded = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    assert {name: kinds[name] for name in recorded} == recorded
    for node in model.graph.node:
        if node.op_type in FLOAT_ONLY:
            assert kinds[node.input[0]] != HALF, node.name

    producer = {name: node for node in model.graph.node for name in node.output}
    for block, r in enumerate(full.manifest.tome.r):
        assert r > 0
        todo, seen = [f"block{block}.label", f"block{block}.size"], set()
        while todo:
            name = todo.pop()
            if name in seen or name in (f"block{block}.norm1", f"block{block - 1}.size"):
                continue
            if name not in producer:
                continue
            seen.add(name)
            assert kinds[name] != HALF, name
            todo += producer[name].input
        assert f"block{block}.scores" in seen
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    halves = sum(kinds[node.output[0]] == HALF for node in products)
    assert halves == 7 * (small.DEPTH - len(kept))  # four layers, attention's two, the average


def test_it_is_nearly_the_float_model_and_merges_first_what_that_merges(full):
    model, _ = halved(full)
    image = make_sample("photo:1", full.manifest.preprocess)[None]
    path = full.path / "inference.onnx"
    wanted = start_session(path, full.path).run(["logits"], {"image": image})[0]
    found = start_session(model.SerializeToString(), full.path).run(["logits"], {"image": image})[0]
    assert 1e-6 < small.relative(found, wanted) < 2e-3  # it did round, and no more than that
    tap = ["block0.label"]
    wanted = start_session(with_taps(path, tap), full.path).run(tap, {"image": image})[0]
    model.graph.output.extend(value for value in model.graph.value_info if value.name in tap)
    found = start_session(model.SerializeToString(), full.path).run(tap, {"image": image})[0]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("target", ["tensorrt-8.6", "tensorrt-10", "tensorrt-11", "onnxruntime-cuda"])
def test_targets_with_a_gpu_take_it(target, full):
    of_full = lint.lint_onnx(full.path / "inference.onnx", [target])
    report = lint.lint_onnx(halved(full)[0], [target])
    assert report.clean == (target,)
    assert {each.problem for each in report.findings} <= {each.problem for each in of_full.findings}


def test_a_weight_out_of_range_is_named(checkpoint, tmp_path):
    block = 4
    model = train.load(checkpoint, 8)
    out_of_range(model, block)
    with quiet(), pytest.raises(ConversionError, match="^[^\n]*$") as caught:
        export(model, tmp_path / "out", **FP16)
    assert f"blocks.{block}.mlp.fc1.weight holds 1e+06, and float16 ends at 65504" in str(caught.value)
    assert str(caught.value).endswith(f"--keep-float {block}") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("blocks", [(2,), pytest.param((1, 3), marks=pytest.mark.slow)])
def test_an_overflow_is_found_and_its_blocks_are_named(blocks, checkpoint, digit_folder, tmp_path):
    """float16 ends at 65504; in float32 nothing is wrong."""
    model = train.load(checkpoint, 8)
    for block in blocks:
        overflowing(model, block)
    asked = {"images": digit_folder / "3", **FP16}
    keep = ",".join(map(str, blocks))
    with quiet(), pytest.raises(AccuracyError, match="^[^\n]*$") as caught:
        export(model, tmp_path / "out", **asked)
    assert "fp16 predicts what fp32 does on 0.00% of" in str(caught.value)
    assert f"--keep-float {keep} gives 100.00%" in str(caught.value)
    if len(blocks) == 1:
        return  # what follows is the same
    with quiet():
        bundle = export(model, tmp_path / "out", keep_float=keep.split(","), **asked)
    (result,) = bundle.manifest.precisions
    assert (result.name, result.method, result.kept, result.passed) == ("onnx fp16", "cast", blocks, True)
    assert result.figures.top1_agreement == 1 and result.figures.max_abs < LARGEST


def test_a_model_that_others_built(tmp_path):
    """With query and key norms, so that the metric is no column of a layer; with LayerScale, whose factors
    may be too small for float16."""
    model = foreign_models.TimmViT()
    randomise(model, 3)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.set_value(np.full(parameter.shape, 0.5, np.float32))
    model.eval()
    with quiet():
        bundle = export(model, tmp_path / "out", r=6, precisions=("fp32", "fp16"))
    judged = {each.precision: each for each in bundle.manifest.parity if each.runtime == "onnx"}
    assert judged["fp16"].passed and judged["fp16"].max_rel > 10 * judged["fp32"].max_rel
    graph = onnx.load(bundle.path / "inference.fp16.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert {kinds[name] for name in kinds if name.endswith("gamma")} == {FLOAT}
    assert HALF in kinds.values()
