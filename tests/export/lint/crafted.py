"""Graphs that are good or bad on purpose: what attributes, shapes and formats do beyond operator and type."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.export.lint.graphs import X, graph, vi

F16, F32 = np.float16, np.float32
INDICES = np.array([[0, 0], [1, 2], [3, 3]], np.int64)
ROWS = np.array([[0], [0]], np.int64)


def scatter_elements(dtype, reduction, opset=18):
    given = [X.astype(dtype), INDICES, (X[:, :2] + 1).astype(dtype)]
    return graph("ScatterElements", opset, given, [], {"axis": 1, "reduction": reduction})


def scatter_nd(dtype, reduction, opset=18):
    given = [X.astype(dtype), ROWS, (X[:2] + 1).astype(dtype)]
    return graph("ScatterND", opset, given, [], {"reduction": reduction})


def top_k(k, constant=True, size=8, **attributes):
    values = np.random.default_rng(0).permutation(2 * size).reshape(2, size).astype(F32)
    k = np.array([k], np.int64)
    attributes = {"axis": -1, **attributes}
    if constant:
        return graph("TopK", 17, [values], [k], attributes, outputs=2)
    return graph("TopK", 17, [values, k], [], attributes, outputs=2)


def one_hot(constant=True):
    depth, values = np.array(3, np.int64), np.array([0, 1], F32)
    indices = np.array([0, 2, 1], np.int64)
    if constant:
        return graph("OneHot", 17, [indices], [depth, values])
    return graph("OneHot", 17, [indices, depth], {2: values})


def layer_norm(dtype=F16, outputs=1):
    given = X.astype(dtype)
    return graph("LayerNormalization", 17, [given], [np.ones(4, dtype), np.zeros(4, dtype)], outputs=outputs)


def custom(domain, op, dtype=F32):
    return graph(op, 17, [X.astype(dtype)], domain=domain)


def unknown():
    """An operator ONNX's own domain does not have. (Built past the checker, which refuses it.)"""
    node = helper.make_node("MergeTokens", ["x0"], ["y0"], name="node")
    body = helper.make_graph(
        [node], "g", [vi("x0", TensorProto.FLOAT, [3, 4])], [vi("y0", TensorProto.FLOAT, [3, 4])]
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), {
        "x0": X.astype(F32)
    }


def opset(version, ir_version=8):
    model, feeds = graph("Add", 17, [X.astype(F32), X.astype(F32)])
    model.opset_import[0].version = version
    model.ir_version = ir_version
    return model, feeds


def dynamic(dims=("batch", "tokens"), op="Relu"):
    model, feeds = graph(op, 17, [X.astype(F32)])
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, dims, strict=True):
            if name is not None:
                dim.dim_param = name
    return model, feeds


def half_mask(value):
    """A float32 mask, cast to float16, times zero where nothing is masked: 0 x inf is NaN."""
    mask = numpy_helper.from_array(np.full((3, 4), value, F32), "mask")
    nodes = [
        helper.make_node("Cast", ["mask"], ["half"], name="cast", to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["x0", "half"], ["y0"], name="apply"),
    ]
    shapes = [3, 4]
    body = helper.make_graph(
        nodes, "g", [vi("x0", TensorProto.FLOAT16, shapes)], [vi("y0", TensorProto.FLOAT16, shapes)], [mask]
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"x0": np.zeros((3, 4), F16)}


def half_constant(value):
    """The same with the mask stored in float16."""
    return graph("Mul", 17, [np.zeros((3, 4), F16)], [np.full((3, 4), value, F16)])


def squares(dtype, scale=100.0):
    """sqrt(sum(x * x)) written out."""
    nodes = [
        helper.make_node("Mul", ["x0", "x0"], ["square"], name="square"),
        helper.make_node("ReduceSum", ["square", "axes"], ["sum"], name="sum"),
        helper.make_node("Sqrt", ["sum"], ["y0"], name="root"),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    axes = numpy_helper.from_array(np.array([-1], np.int64), "axes")
    body = helper.make_graph(nodes, "g", [vi("x0", kind, [3, 4])], [vi("y0", kind, [3, 1])], [axes])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"x0": (X * scale).astype(dtype)}


def big_integer(value):
    return graph("Add", 17, [np.array([1, 2, 3], np.int64)], [np.array([value], np.int64)])


def einsum(equation, *shapes):
    return graph("Einsum", 17, [np.ones(shape, F32) for shape in shapes], [], {"equation": equation})


def cum_sum(constant=True):
    axis = np.array(1, np.int64)
    return (
        graph("CumSum", 17, [X.astype(F32)], [axis])
        if constant
        else graph("CumSum", 17, [X.astype(F32), axis])
    )


def reduce(kind, opset, axes):
    return graph(f"Reduce{kind}", opset, [X.astype(F32)], [], {"axes": axes, "keepdims": 1})


def quantize(zero_point):
    return graph("QuantizeLinear", 17, [X.astype(F32)], [np.array(0.7, F32), np.array(zero_point)])


def resize(mode):
    image = np.arange(16, dtype=F32).reshape(1, 1, 4, 4)
    constants = {1: None, 2: np.array([1, 1, 2, 2], F32)}
    return graph("Resize", 17, [image], constants, {"mode": mode})


def function():
    """A model-local function: its body is what runs."""
    body = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    node = helper.make_node("Twice", ["x0"], ["y0"], domain="local", name="node")
    given = vi("x0", TensorProto.FLOAT, [3, 4])
    whole = helper.make_graph([node], "g", [given], [vi("y0", TensorProto.FLOAT, [3, 4])])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(whole, opset_imports=imports, functions=[body], ir_version=8)
    return model, {"x0": X.astype(F32)}


def branches(op):
    """An If with `op` in one branch."""
    made = vi("b", TensorProto.FLOAT, [3, 4])
    then = helper.make_graph([helper.make_node(op, ["x0"], ["b"], name="inside")], "then", [], [made])
    other = helper.make_graph([helper.make_node("Identity", ["x0"], ["b"])], "else", [], [made])
    node = helper.make_node("If", ["c"], ["y0"], then_branch=then, else_branch=other, name="if")
    inputs = [vi("c", TensorProto.BOOL, []), vi("x0", TensorProto.FLOAT, [3, 4])]
    body = helper.make_graph([node], "g", inputs, [vi("y0", TensorProto.FLOAT, [3, 4])])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"c": np.array(True), "x0": X.astype(F32)}


_HALF_INFINITY = float("inf")
CASES = {
    **{
        f"scatter_elements {reduction} {np.dtype(dtype).name}": lambda d=dtype, r=reduction: scatter_elements(
            d, r
        )
        for reduction in ("none", "add", "mul", "max", "min")
        for dtype in (F32, F16, np.int64)
    },
    **{
        f"scatter_nd {reduction} {np.dtype(dtype).name}": lambda d=dtype, r=reduction: scatter_nd(d, r)
        for reduction in ("add", "mul", "max", "min")
        for dtype in (F32, F16, np.int64)
    },
    "scatter_elements add opset 16": lambda: scatter_elements(F32, "add", 16),
    "scatter_nd add opset 16": lambda: scatter_nd(F32, "add", 16),
    "top_k": lambda: top_k(3),
    "top_k dynamic": lambda: top_k(3, constant=False),
    "top_k large": lambda: top_k(3841, size=4000),
    "top_k unsorted": lambda: top_k(8, sorted=0),
    "one_hot": one_hot,
    "one_hot dynamic": lambda: one_hot(constant=False),
    "layer_norm float16": layer_norm,
    "layer_norm float32": lambda: layer_norm(F32),
    "layer_norm three outputs": lambda: layer_norm(F32, 3),
    "unknown operator": unknown,
    "custom domain": lambda: custom("com.example", "MergeTokens"),
    "microsoft domain": lambda: custom("com.microsoft", "Gelu"),
    "microsoft domain unknown": lambda: custom("com.microsoft", "MergeTokens"),
    "opset 7": lambda: opset(7, 3),
    "opset 22": lambda: opset(22, 10),
    "opset 23": lambda: opset(23, 11),
    "opset 24": lambda: opset(24, 11),
    "opset 25": lambda: opset(25, 12),
    "opset 26": lambda: opset(26, 13),
    "opset 27": lambda: opset(27, 13),
    "opset 40": lambda: opset(40, 13),
    "ir version 11": lambda: opset(17, 11),
    "ir version 12": lambda: opset(17, 12),
    "ir version 13": lambda: opset(17, 13),
    "ir version 14": lambda: opset(17, 14),
    "ir version 20": lambda: opset(17, 20),
    "dynamic batch": lambda: dynamic(("batch", None)),
    "dynamic tokens": dynamic,
    "half mask -1e9": lambda: half_mask(-1e9),
    "half mask -1e4": lambda: half_mask(-1e4),
    "half constant -inf": lambda: half_constant(-_HALF_INFINITY),
    "half constant -1e4": lambda: half_constant(-1e4),
    "squares float16 large": lambda: squares(F16),
    "squares float32 large": lambda: squares(F32),
    "integer 2**40": lambda: big_integer(2**40),
    "integer 2**30": lambda: big_integer(2**30),
    "einsum": lambda: einsum("bij,bkj->bik", (2, 3, 4), (2, 5, 4)),
    "einsum ellipsis": lambda: einsum("...ij,...kj->...ik", (2, 3, 4), (2, 5, 4)),
    "cum_sum": cum_sum,
    "cum_sum dynamic": lambda: cum_sum(constant=False),
    **{
        f"reduce {kind} opset 17 axis {axis}": lambda k=kind, a=axis: reduce(k, 17, [a])
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Prod", "SumSquare")
        for axis in (-1, 1)
    },
    "quantize int8": lambda: quantize(np.int8(0)),
    "quantize uint8": lambda: quantize(np.uint8(0)),
    "quantize zero point": lambda: quantize(np.int8(3)),
    "resize linear": lambda: resize("linear"),
    "resize cubic": lambda: resize("cubic"),
    "local function": function,
    "if": lambda: branches("Relu"),
    "if unknown": lambda: branches("MergeTokens"),
}
