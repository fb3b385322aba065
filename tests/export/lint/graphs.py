"""One small graph for every operator, element type and opset that a table speaks of, with inputs to run it
on."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "float16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "float": (TensorProto.FLOAT, np.dtype(np.float32)),
    "double": (TensorProto.DOUBLE, np.dtype(np.float64)),
    "int8": (TensorProto.INT8, np.dtype(np.int8)),
    "uint8": (TensorProto.UINT8, np.dtype(np.uint8)),
    "int32": (TensorProto.INT32, np.dtype(np.int32)),
    "int64": (TensorProto.INT64, np.dtype(np.int64)),
    "bool": (TensorProto.BOOL, np.dtype(np.bool_)),
}
X = np.array([[0.5, 2.0, 1.0, 3.0], [1.5, 0.25, 4.0, 2.5], [3.5, 1.25, 0.75, 5.0]])
IMAGE = (np.arange(2 * 4 * 4 * 4).reshape(2, 4, 4, 4) % 7) / 2 + 0.5
UNARY = """
    Abs Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not
    Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Tanh
""".split()
BINARY = "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Xor"
BINARY = BINARY.split()
REDUCE = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
AXES_AS_INPUT = {name: 18 for name in REDUCE} | {"Sum": 13}


# From which opset on; ONNX 1.17 cannot infer the shapes of these two.
_SAME_SHAPE = {"GroupNormalization": 18, "MeanVarianceNormalization": 9}


def vi(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def array(values, type_name):
    return np.asarray(values).astype(TYPES[type_name][1])


def graph(op, opset, fed, constants=(), attributes=None, outputs=1, domain="", name="node"):
    """A model of one node. fed, constants: lists of arrays (None: an input left out), in the order fed first,
    unless `constants` is a dict position -> array. Outputs carry no type: the engine infers it."""
    attributes = attributes or {}
    if not isinstance(constants, dict):
        constants = {len(fed) + i: value for i, value in enumerate(constants)}
    names, inputs, feeds, initializers, todo = [], [], {}, [], list(fed)
    for position in range(len(fed) + len(constants)):
        value = constants[position] if position in constants else todo.pop(0)
        if value is None:
            names.append("")
            continue
        label = f"x{position}"
        names.append(label)
        proto = numpy_helper.from_array(value, label)
        if position in constants:
            initializers.append(proto)
        else:
            inputs.append(vi(label, proto.data_type, list(value.shape)))
            feeds[label] = value
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, made, name=name, domain=domain, **attributes)
    body = helper.make_graph([node], "g", inputs, [], initializers)
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    model = helper.make_model(
        body, opset_imports=imports, ir_version=min(8 + (opset > 18) + (opset > 20), 10)
    )
    if op in _SAME_SHAPE:
        if fed[0].dtype.kind != "f" or opset < _SAME_SHAPE[op]:
            return None, feeds
        like = inputs[0].type.tensor_type
        model.graph.output.append(vi("y0", like.elem_type, [dim.dim_value for dim in like.shape.dim]))
    elif not domain:
        try:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
            known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
            model.graph.output.extend(known[each] for each in made)
            onnx.checker.check_model(model, full_check=True)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, KeyError):
            return None, feeds
    else:
        model.graph.output.extend(vi(each, TensorProto.FLOAT, None) for each in made)
    return model, feeds


def _i64(*values):
    return np.array(values, np.int64)


def make(op, type_name, opset):
    """(model, feeds) of `op` on elements of this type, or (None, _) where ONNX itself forbids it."""
    x = array(X, type_name)
    t = lambda values: array(values, type_name)  # noqa: E731
    if op in UNARY:
        return graph(op, opset, [x])
    if op in BINARY:
        attributes = (
            {"fmod": 1}
            if op == "Mod" and "float" in type_name or op == "Mod" and type_name == "double"
            else {}
        )
        return graph(op, opset, [x, t(X[::-1] + 1)], attributes=attributes)
    if op.startswith("Reduce"):
        kind = op[6:]
        if opset >= AXES_AS_INPUT[kind]:
            return graph(op, opset, [x], [_i64(-1)], {"keepdims": 1})
        return graph(op, opset, [x], [], {"axes": [-1], "keepdims": 1})
    builders = {
        "ArgMax": lambda: graph(op, opset, [x], [], {"axis": -1}),
        "ArgMin": lambda: graph(op, opset, [x], [], {"axis": -1}),
        "AveragePool": lambda: graph(op, opset, [t(IMAGE)], [], {"kernel_shape": [2, 2]}),
        "BatchNormalization": lambda: graph(
            op, opset, [t(IMAGE)], [t([1, 2, 1, 2]), t([0, 1, 0, 1]), t([1, 1, 2, 2]), t([1, 2, 1, 2])]
        ),
        "Cast": lambda: graph(op, opset, [x], [], {"to": TensorProto.FLOAT}),
        "CastLike": lambda: graph(op, opset, [x, np.ones(1, np.float32)]),
        "Clip": lambda: graph(op, opset, [x], [t(1), t(3)]),
        "Compress": lambda: graph(op, opset, [x], [np.array([True, False, True])], {"axis": 0}),
        "Concat": lambda: graph(op, opset, [x, x], [], {"axis": 1}),
        "Constant": lambda: graph(op, opset, [], [], {"value": numpy_helper.from_array(x, "v")}),
        "ConstantOfShape": lambda: graph(
            op, opset, [], [_i64(2, 3)], {"value": numpy_helper.from_array(t([1]), "v")}
        ),
        "Conv": lambda: graph(
            op, opset, [t(IMAGE)], [t(IMAGE[:, :, :2, :2]), t([1, 2])], {"strides": [2, 2]}
        ),
        "ConvTranspose": lambda: graph(op, opset, [t(IMAGE)], [t(np.ones((4, 2, 2, 2)))]),
        "CumSum": lambda: graph(op, opset, [x], [_i64(1)]),
        "DepthToSpace": lambda: graph(op, opset, [t(IMAGE)], [], {"blocksize": 2}),
        "DequantizeLinear": lambda: graph(op, opset, [x], [np.float32(0.5), t(0)]),
        "Dropout": lambda: graph(op, opset, [x]),
        "DynamicQuantizeLinear": lambda: graph(op, opset, [x], outputs=3),
        "Einsum": lambda: graph(op, opset, [x, x], [], {"equation": "ij,kj->ik"}),
        "Expand": lambda: graph(op, opset, [x], [_i64(2, 3, 4)]),
        "EyeLike": lambda: graph(op, opset, [x]),
        "Flatten": lambda: graph(op, opset, [t(IMAGE)], [], {"axis": 2}),
        "Gather": lambda: graph(op, opset, [x], [_i64(2, 0)], {"axis": 0}),
        "GatherElements": lambda: graph(
            op, opset, [x, _i64(0, 3, 1, 2, 2, 0).reshape(3, 2)], [], {"axis": 1}
        ),
        "GatherND": lambda: graph(op, opset, [x, _i64(0, 1, 2, 3).reshape(2, 2)]),
        "Gemm": lambda: graph(op, opset, [x], [t(X), t([1, 2, 3])], {"transB": 1}),
        "GlobalAveragePool": lambda: graph(op, opset, [t(IMAGE)]),
        "GlobalMaxPool": lambda: graph(op, opset, [t(IMAGE)]),
        "GroupNormalization": lambda: graph(
            op, opset, [t(IMAGE)], [t(np.ones(2 if opset < 21 else 4)), t(np.zeros(2 if opset < 21 else 4))],
            {"num_groups": 2},
        ),
        "Hardmax": lambda: graph(op, opset, [x]),
        "InstanceNormalization": lambda: graph(op, opset, [t(IMAGE)], [t([1, 2, 1, 2]), t([0, 1, 0, 1])]),
        "LayerNormalization": lambda: graph(op, opset, [x], [t([1, 2, 1, 1]), t([0, 1, 0, 1])], {"axis": -1}),
        "LogSoftmax": lambda: graph(op, opset, [x], [], {"axis": -1}),
        "LpNormalization": lambda: graph(op, opset, [x], [], {"axis": -1, "p": 2}),
        "MatMul": lambda: graph(op, opset, [x, t(X.T)]),
        "MatMulInteger": lambda: graph(op, opset, [x, t(X.T)]),
        "MaxPool": lambda: graph(op, opset, [t(IMAGE)], [], {"kernel_shape": [2, 2]}),
        "MeanVarianceNormalization": lambda: graph(op, opset, [t(IMAGE)]),
        "NonZero": lambda: graph(op, opset, [t(X > 1)]),
        "OneHot": lambda: graph(op, opset, [_i64(0, 2, 1)], [np.array(3, np.int64), t([0, 1])], {"axis": -1}),
        "PRelu": lambda: graph(op, opset, [x], [t([1, 2, 1, 1])]),
        "Pad": lambda: graph(op, opset, [x], [_i64(0, 1, 0, 1), t(1)]),
        "QLinearMatMul": lambda: graph(
            op, opset, [x], [np.float32(1), t(0), t(X.T), np.float32(1), t(0), np.float32(1), t(0)]
        ),
        "QuantizeLinear": lambda: graph(op, opset, [x], [t(0.5), np.uint8(0)]),
        "Range": lambda: graph(op, opset, [], [t(0), t(6), t(2)]),
        "Reshape": lambda: graph(op, opset, [x], [_i64(4, 3)]),
        "Resize": lambda: graph(
            op, opset, [t(IMAGE)], [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)],
            {"mode": "linear"},
        ),
        "ScatterElements": lambda: graph(
            op, opset, [x, _i64(0, 3, 1, 2, 2, 0).reshape(3, 2), t(X[:, :2] + 1)], [], {"axis": 1}
        ),
        "ScatterND": lambda: graph(op, opset, [x, _i64(0, 2).reshape(2, 1), t(X[:2] + 1)]),
        "Shape": lambda: graph(op, opset, [x]),
        "Size": lambda: graph(op, opset, [x]),
        "Slice": lambda: graph(op, opset, [x], [_i64(0), _i64(4), _i64(1), _i64(2)]),
        "Softmax": lambda: graph(op, opset, [x], [], {"axis": -1}),
        "SpaceToDepth": lambda: graph(op, opset, [t(IMAGE)], [], {"blocksize": 2}),
        "Split": lambda: graph(op, opset, [x], [_i64(1, 3)], {"axis": 1}, outputs=2),
        "Squeeze": lambda: graph(op, opset, [x[None]], [_i64(0)]),
        "Tile": lambda: graph(op, opset, [x], [_i64(1, 2)]),
        "TopK": lambda: graph(op, opset, [x], [_i64(2)], {"axis": -1}, outputs=2),
        "Transpose": lambda: graph(op, opset, [x], [], {"perm": [1, 0]}),
        "Trilu": lambda: graph(op, opset, [x], [], {"upper": 1}),
        "Unique": lambda: graph(op, opset, [t([2, 1, 2, 3])]),
        "Unsqueeze": lambda: graph(op, opset, [x], [_i64(0)]),
        "Where": lambda: graph(op, opset, [X > 1, x, t(X + 1)]),
    }  # fmt: skip
    return builders[op]()


_BUILT = """
    ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Clip Compress Concat Constant
    ConstantOfShape Conv ConvTranspose CumSum DepthToSpace DequantizeLinear Dropout
    DynamicQuantizeLinear Einsum Expand EyeLike Flatten Gather GatherElements GatherND Gemm
    GlobalAveragePool GlobalMaxPool GroupNormalization Hardmax InstanceNormalization
    LayerNormalization LogSoftmax LpNormalization MatMul MatMulInteger MaxPool
    MeanVarianceNormalization NonZero OneHot PRelu Pad QLinearMatMul QuantizeLinear Range Reshape
    Resize ScatterElements ScatterND Shape Size Slice Softmax SpaceToDepth Split Squeeze Tile TopK
    Transpose Trilu Unique Unsqueeze Where
"""
OPERATORS = sorted([*UNARY, *BINARY, *(f"Reduce{kind}" for kind in REDUCE), *_BUILT.split()])
