"""The tables: every row says where it is from, and every operator that we export is in every table."""

import re

import pytest

from tests.export.lint.conftest import CASES
from tome_export.errors import RequestError
from tome_export.lint import TARGETS, onnx_reader, paddle_reader
from tome_export.lint.operators import find_row
from tome_export.lint.table import choose, load

EXPECTED = set(
    """
    MatMul Softmax LayerNormalization TopK ArgMax Where GatherElements OneHot Gemm Conv
    ScatterElements ScatterND CumSum Einsum Expand Shape Slice QuantizeLinear DequantizeLinear
    DynamicQuantizeLinear Erf Gelu ReduceMax ReduceSum ReduceMean ReduceL2 Trilu Cast Concat Split
    Squeeze Unsqueeze Tile Transpose Reshape Range NonZero Gather GatherND Equal Greater Less Not
    And Or Log Exp Sqrt Div Mul Add Sub Pow Clip Identity Constant ConstantOfShape If Loop Pad
    Resize Tanh Sigmoid Relu Min Max Mod Neg Abs
    """.split()
)


@pytest.mark.parametrize("name", TARGETS)
def test_every_row_and_condition_has_a_source(name):
    target = load(name)
    rows = [row for each in target.rows.values() for row in each]
    assert len(rows) > 60
    for entry in (*rows, *target.checks):
        assert re.search(r"\w{3,}.*\s.*\w{3,}", entry.source), (
            entry
        )  # words, not the name of a missing source
    for limit in ("opset_source", "dynamic_source", "int32_source", "functions_source"):
        if limit in target.limits:
            assert " " in target.sources.get(target.limits[limit], target.limits[limit])


@pytest.mark.parametrize("name", TARGETS)
def test_conditions_are_about_operators_that_have_a_row(name):
    target = load(name)
    for check in target.checks:
        assert check.severity in ("red", "yellow") and check.problem and check.advice
        missing = [each for each in check.operators if each not in target.rows]
        assert not missing


@pytest.mark.parametrize("name", [name for name in TARGETS if load(name).graph == "onnx"])
def test_the_tables_cover_what_a_vision_transformer_may_hold(name):
    assert load(name).rows.keys() >= EXPECTED


@pytest.mark.parametrize("index", range(len(CASES)), ids=map(str, CASES))
def test_every_operator_we_export_is_in_every_table(bundles, index):
    bundle = bundles[index]
    onnx_graph = onnx_reader.read_file(bundle.path / "inference.onnx")
    program = paddle_reader.read_file(bundle.path / "inference.json")
    assert len({node.operator for node in onnx_graph.nodes}) > 20 and len(program.nodes) > 100
    for target in map(load, TARGETS):
        graph = onnx_graph if target.graph == "onnx" else program
        for node in graph.nodes:
            row = find_row(target, node.operator, graph.opset)
            assert row is not None and row.supported, (target.name, node.operator)


def test_targets_are_chosen_by_name():
    assert choose(None) == TARGETS
    assert choose(["openvino,tensorrt-10", "openvino"]) == ("tensorrt-10", "openvino")
    with pytest.raises(RequestError, match="no target 'tensorrt-9'; choose from tensorrt-8.6, "):
        choose(["tensorrt-9"])
