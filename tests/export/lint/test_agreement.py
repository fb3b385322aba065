"""A verdict that no engine contradicts: what the linter calls red is refused or wrong, and nothing else
is."""

import itertools
from importlib import metadata

import numpy as np
import onnx
import pytest

from tests.export.lint import crafted, engines, graphs
from tome_export.lint import lint_onnx
from tome_export.lint.table import load

USUAL = (17, 20)  # the default of an export, and the last that it can write
FIRST, LAST = 13, 22
RUN = tuple(engines.ENGINES)
# Here ONNX's own reference implementation is the one that is wrong; the engines agree with each other.
REFERENCE_IS_WRONG = {
    ("TopK", "uint8"): "it sorts -x, which wraps",
    ("BatchNormalization", 13): "it takes opset 13 for training",
    ("scatter_elements mul",): "it multiplies by the last update only",
}
# Red for what runs "right": refusing is not the point, the number is. Shown in the tests below.
SILENT = ("half mask -1e9", "half constant -inf")
# float16 that overflows by the letter, and does not where an engine computes in float32.
BETTER_THAN_ASKED = ("squares float16 large",)


def opsets(op):
    """Those at which ONNX changed the operator, the ends, and 18: at that one ONNX Runtime knows more
    functions."""
    versions = {each.since_version for each in onnx.defs.get_all_schemas_with_history() if each.name == op}
    return sorted({FIRST, 18, LAST} | {each for each in versions if FIRST < each < LAST})


def contradicted(verdict, found, target):
    """Whether the engine contradicts the linter. Another version than the table was proven with may have
    learnt to run what the table calls red, but must not refuse what it calls fine."""
    package, proven = load(target).limits["proven_with"].split()
    bad = verdict in ("refused", "wrong")
    if verdict == "ran":  # with nothing to compare the answer with, it contradicts no verdict
        return False
    if metadata.version(package) == proven:
        return bad != bool(found)
    return bad and not found


def reds(model, target):
    return [finding for finding in lint_onnx(model, [target]).findings if finding.severity == "red"]


def agree(op, at):
    """Run the operator in every type at these opsets, on every engine, and compare with the verdicts."""
    seen = 0
    for type_name, opset in itertools.product(graphs.TYPES, at):
        model, feeds = graphs.make(op, type_name, opset)
        if model is None:
            continue
        for target in RUN:
            verdict, said = engines.outcome(target, model, feeds)
            if verdict == "wrong" and {(op, type_name), (op, opset)} & REFERENCE_IS_WRONG.keys():
                verdict = "right"
            found = reds(model, target)
            where = f"{op} {type_name} opset {opset} on {target}: {verdict} ({said}), but {found}"
            assert not contradicted(verdict, found, target), where
            seen += 1
    assert seen >= 2, f"nothing was run for {op}"


@pytest.mark.parametrize("op", graphs.OPERATORS)
@pytest.mark.filterwarnings("ignore")
def test_every_operator_and_type(op):
    agree(op, USUAL)


@pytest.mark.slow
@pytest.mark.parametrize("op", graphs.OPERATORS)
@pytest.mark.filterwarnings("ignore")
def test_every_operator_type_and_opset(op):
    agree(op, opsets(op))


@pytest.mark.parametrize("target", RUN)
@pytest.mark.parametrize(
    "name", [name for name in crafted.CASES if name not in (*SILENT, *BETTER_THAN_ASKED)]
)
@pytest.mark.filterwarnings("ignore")
def test_crafted_graphs(name, target):
    model, feeds = crafted.CASES[name]()
    verdict, said = engines.outcome(target, model, feeds)
    if verdict == "wrong" and name.startswith("scatter_elements mul"):
        verdict = "right"
    if name == "top_k unsorted":  # any order is right
        found = engines.ENGINES[target](model, feeds)[0]
        verdict = "right" if (np.sort(found) == np.sort(feeds["x0"])).all() else "wrong"
    found = reds(model, target)
    assert not contradicted(verdict, found, target), f"{verdict} ({said}), but {found}"


def test_scatter_elements_mul_is_right_where_the_reference_is_not():
    model, feeds = crafted.CASES["scatter_elements mul float32"]()
    expected = feeds["x0"].copy()
    for row, columns in enumerate(feeds["x1"]):
        for update, column in zip(feeds["x2"][row], columns, strict=True):
            expected[row, column] *= update
    for run in engines.ENGINES.values():
        np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("target", RUN)
@pytest.mark.parametrize("name", SILENT)
def test_an_infinite_mask_makes_nan_without_a_word(name, target):
    model, feeds = crafted.CASES[name]()
    assert not np.isfinite(engines.ENGINES[target](model, feeds)[0]).any()  # 0 times the mask should be 0
    assert reds(model, target)


@pytest.mark.parametrize("target", RUN)
def test_a_finite_mask_does_not(target):
    for name in ("half mask -1e4", "half constant -1e4"):
        model, feeds = crafted.CASES[name]()
        assert (engines.ENGINES[target](model, feeds)[0] == 0).all()
        assert not reds(model, target)


def test_a_sum_of_squares_in_float16_overflows_by_the_letter():
    model, feeds = crafted.CASES["squares float16 large"]()
    with np.errstate(over="ignore"):
        assert np.isinf(engines.reference(model, feeds)[0]).all()
    found = lint_onnx(model, ["tensorrt-10", "openvino", "onnxruntime-cpu"]).findings
    assert {finding.target for finding in found if "sum of squares" in finding.problem} == {
        "tensorrt-10", "openvino", "onnxruntime-cpu",
    }  # fmt: skip


def test_onnx_runtime_has_no_float16_kernel_where_the_table_says_so():
    """Yellow: it runs, between casts that ONNX Runtime inserts, which the saved optimised graph shows."""
    model, feeds = crafted.CASES["layer_norm float16"]()
    casts = [
        each for each in lint_onnx(model, ["onnxruntime-cpu"]).findings if "inserted casts" in each.problem
    ]
    inserted = engines.optimised_operators(model).count("Cast")
    assert bool(casts) == (inserted > 0)
    assert engines.outcome("onnxruntime-cpu", model, feeds)[0] == "right"


def test_the_onnx_runtime_table_claims_no_more_than_its_kernels():
    import onnxruntime.capi.onnxruntime_pybind11_state as state

    there = {}
    for each in state.get_all_opkernel_def():
        name = f"{each.domain}.{each.op_name}" if each.domain else each.op_name
        types = {text[7:-1] for texts in each.type_constraints.values() for text in texts}
        there.setdefault((name, each.version_range[0]), set()).update(types)
    checked = 0
    for rows in load("onnxruntime-cpu").rows.values():
        for row in rows:
            if "registry" not in row.source:
                continue
            claimed = {name for names in (row.types or {}).values() for name in names}
            assert claimed <= there[row.operator, row.opset], row
            checked += 1
    assert checked > 200
