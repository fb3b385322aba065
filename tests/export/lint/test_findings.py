"""Each seeded fault is found for the targets it matters to, with what it is about, and for no other."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.export.lint import crafted
from tests.export.lint.graphs import vi
from tome_export.errors import BundleError
from tome_export.lint import TARGETS, Finding, group, lint_graph, lint_onnx
from tome_export.lint.graph import Graph, Node, Tensor

TENSORRT = {"tensorrt-8.6", "tensorrt-10", "tensorrt-11"}
ORT = {"onnxruntime-cpu", "onnxruntime-cuda"}
ALL = TENSORRT | ORT | {"openvino"}


def about(name, words):
    """severity -> targets, of the findings whose problem has these words."""
    model, _ = crafted.CASES[name]()
    found = {"red": set(), "yellow": set()}
    for finding in lint_onnx(model).findings:
        if words in finding.problem:
            found[finding.severity].add(finding.target)
            assert finding.source and finding.advice
    return found["red"], found["yellow"]


@pytest.mark.parametrize(
    ("name", "words", "red", "yellow"),
    [
        ("scatter_elements add opset 16", "ignored", {"tensorrt-8.6"}, set()),
        ("scatter_elements add opset 16", "plugin", set(), {"tensorrt-10", "tensorrt-11"}),
        ("scatter_elements add int64", "plugin", set(), {"tensorrt-10", "tensorrt-11"}),
        ("scatter_elements add float16", "refused", {"onnxruntime-cpu"}, set()),
        ("scatter_elements add opset 16", "integer reductions", set(), {"onnxruntime-cuda"}),
        ("scatter_nd add opset 16", "ignored", {"tensorrt-8.6"}, set()),
        ("scatter_nd add opset 16", "rejected", {"tensorrt-10", "tensorrt-11"}, set()),
        ("top_k dynamic", "K is not known", TENSORRT, set()),
        ("top_k dynamic", "not fixed", TENSORRT, ORT | {"openvino"}),
        ("top_k large", "above 3840", TENSORRT, set()),
        ("top_k unsorted", "sorted", {"tensorrt-10", "tensorrt-11"}, {"tensorrt-8.6"}),
        ("one_hot dynamic", "depth", TENSORRT, set()),
        ("layer_norm float16", "LayerNormalization in float16", set(), ALL),
        ("opset 22", "opset 22", {"tensorrt-8.6"}, {"tensorrt-10"}),
        ("opset 26", "opset 26", TENSORRT, set()),
        ("opset 40", "opset 40", TENSORRT | ORT, set()),
        ("dynamic tokens", "[batch, ?]", TENSORRT, ORT | {"openvino"}),
        ("unknown operator", "not known", ALL, set()),
        ("custom domain", "not known", ALL, set()),
        ("if unknown", "not known", ALL, set()),
        ("half mask -1e9", "becomes infinite", ALL, set()),
        ("half constant -inf", "infinite constant", ALL, set()),
        ("integer 2**40", "32 bits", {"tensorrt-8.6", "openvino"}, set()),
        ("local function", "functions", {"openvino"}, set()),
        ("einsum ellipsis", "ellipsis", {"tensorrt-8.6"}, set()),
    ],
)
def test_seeded_faults(name, words, red, yellow):
    assert about(name, words) == (red, yellow)


@pytest.mark.parametrize("name", ["top_k", "one_hot", "layer_norm float32", "dynamic batch", "einsum", "if"])
def test_good_graphs_have_no_finding_at_all(name):
    model, _ = crafted.CASES[name]()
    assert lint_onnx(model).findings == ()


def test_a_finding_names_its_node_and_equal_ones_are_grouped():
    model, _ = crafted.CASES["layer_norm float16"]()
    (finding,) = lint_onnx(model, ["tensorrt-10"]).findings
    assert (finding.node, finding.operator) == ("node", "LayerNormalization")
    other = Finding(**{**vars(finding), "node": "another"})
    worse = Finding(**{**vars(finding), "severity": "red"})
    (first, second) = group([finding, worse, other])
    assert (first.example, first.count) == (worse, 1) and (second.example, second.count) == (finding, 2)


def test_tokens_chosen_in_float16():
    node = Node(
        "choose", "ArgMax", (Tensor("x", "float16", (None, 9)),), (Tensor("y", "int64", (None,)),), {}
    )
    found = lint_graph(Graph("onnx", (node,), opset=17), ["tensorrt-10"]).findings
    assert ["similarities" in each.problem for each in found] == [True]


@pytest.mark.parametrize(
    ("operator", "attributes", "inputs", "severity"),
    [
        ("put_along_axis", {}, (Tensor("x", "float", (1, 2)),), "yellow"),
        ("no_such_thing", {}, (), "yellow"),
        ("gelu", {"approximate": True}, (Tensor("x", "float", (1, 2)),), "red"),
        ("argsort", {"axis": -1}, (Tensor("x", "float", (None, 4000)),), "red"),
        ("sum", {}, (Tensor("x", "float16", (None, 8)),), "yellow"),
        ("argmax", {}, (Tensor("x", "int64", (None, 8)), Tensor("axis", constant=True)), "yellow"),
        ("argsort", {"axis": -1}, (Tensor("x", "float", (None, 400)),), None),
        ("gelu", {"approximate": False}, (Tensor("x", "float", (1, 2)),), None),
    ],
)
def test_paddle_operators(operator, attributes, inputs, severity):
    node = Node("n", f"pd_op.{operator}", inputs, (), attributes)
    found = lint_graph(Graph("paddle", (node,)), ["paddle-trt"]).findings
    assert {each.severity for each in found} == ({severity} if severity else set())


def test_a_file_above_two_gib_and_weights_that_are_not_there(tmp_path):
    large = tmp_path / "large.onnx"
    with open(large, "wb") as file:
        file.truncate(2**31)  # sparse: takes no room
    report = lint_onnx(large)
    assert not report.clean and all("2 GiB" in each.problem for each in report.findings)

    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [vi("x", TensorProto.FLOAT, ["batch", 64])], [vi("y", TensorProto.FLOAT, ["batch", 64])], [weight],
    )  # fmt: skip
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert lint_onnx(path).findings == ()  # the weights are not needed, but have to be there
    (tmp_path / "weights.bin").unlink()
    assert all("weights.bin is not beside" in each.problem for each in lint_onnx(path).findings)


def test_what_is_no_model_is_an_error_of_one_line(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(BundleError, match="cannot be read as an ONNX model"):
        lint_onnx(tmp_path / "a.onnx")


def test_the_model_given_is_left_as_it_was():
    model, _ = crafted.CASES["local function"]()
    before = model.SerializeToString()
    lint_onnx(model)
    assert model.SerializeToString() == before


def test_all_targets_of_a_kind_are_checked_without_being_named():
    model, _ = crafted.CASES["top_k"]()
    names = [verdict.target for verdict in lint_onnx(model).verdicts]
    assert names == [name for name in TARGETS if name != "paddle-trt"]
