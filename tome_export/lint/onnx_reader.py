"""An ONNX model as a `Graph`: types and shapes inferred, weights looked at and let go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tome_export.errors import BundleError, MissingExtraError
from tome_export.lint.graph import KEPT, Graph, Node, Tensor, extent

if TYPE_CHECKING:
    import onnx

LARGEST_FILE = 2**31 - 1  # bytes protobuf can hold
_OWN_DOMAINS = ("", "ai.onnx")
_FOLDED_ELSEWHERE = ("Shape", "Size")  # constant only if the shape is; engines differ


def read_file(path: Path) -> Graph:
    """Raises BundleError for a file that is no ONNX model, MissingExtraError without the onnx package."""
    onnx = _onnx()
    size = path.stat().st_size
    if size > LARGEST_FILE:
        return Graph("onnx", problem=f"the file has {size / 2**30:.1f} GiB; no runtime reads more than 2 GiB")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise BundleError(
            f"{path}: cannot be read as an ONNX model ({' '.join(str(error).split())[:120]})"
        ) from None
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}.get("location")
        if place is not None and not (path.parent / place).is_file():
            return Graph("onnx", problem=f"the weights file {place} is not beside the model")
    return read_model(model)


def read_model(model: onnx.ModelProto) -> Graph:
    """The graph of a model in memory, which is left as it was."""
    onnx = _onnx()
    functions = len(model.functions)
    if functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    skeleton = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        graph=onnx.GraphProto(name=model.graph.name),
    )
    constants = _constants(model.graph)
    for part in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(skeleton.graph, part).extend(getattr(model.graph, part))
    for tensor in model.graph.initializer:  # the shapes without the weights, which inference would copy
        small = constants[tensor.name].value is not None
        skeleton.graph.initializer.append(tensor if small else _outline(onnx, tensor))
    try:
        skeleton = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception:  # a graph that ONNX itself finds wrong: the checks do with the types it states
        pass
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    scope = {value.name: _declared(onnx, value) for value in skeleton.graph.value_info}
    scope |= {value.name: _declared(onnx, value) for value in (*skeleton.graph.input, *skeleton.graph.output)}
    scope |= constants
    nodes: list[Node] = []
    _walk(onnx, skeleton.graph, scope, nodes)
    fed = [value for value in skeleton.graph.input if value.name not in constants]
    return Graph(
        "onnx",
        tuple(nodes),
        tuple(scope[value.name] for value in fed),
        max((opsets[domain] for domain in _OWN_DOMAINS if domain in opsets), default=0),
        model.ir_version,
        bool(functions),
    )


def _walk(onnx: Any, graph: Any, scope: dict[str, Tensor], found: list[Node]) -> None:
    for index, proto in enumerate(graph.node):
        attributes = {each.name: _attribute(onnx, each) for each in proto.attribute}
        inputs = tuple(scope.get(name, Tensor(name)) if name else None for name in proto.input)
        known = (
            all(each is None or each.constant for each in inputs) and proto.op_type not in _FOLDED_ELSEWHERE
        )
        stored = attributes.get("value") if proto.op_type == "Constant" else None
        for name in proto.output:
            if name and known and (proto.input or proto.op_type == "Constant"):
                old = scope.get(name, Tensor(name))
                value = stored if isinstance(stored, np.ndarray) and stored.size <= KEPT else None
                low, high = extent(stored) if isinstance(stored, np.ndarray) else (None, None)
                scope[name] = Tensor(name, old.dtype, old.shape, True, stored is not None, value, low, high)
        outputs = tuple(scope.get(name, Tensor(name)) if name else None for name in proto.output)
        domain = "" if proto.domain in _OWN_DOMAINS else f"{proto.domain}."
        name = proto.name or next((each for each in proto.output if each), f"node {index}")
        found.append(Node(name, domain + proto.op_type, inputs, outputs, attributes))
        for each in proto.attribute:
            for body in (each.g, *each.graphs) if each.type in (5, 10) else ():
                inner = {value.name: _declared(onnx, value) for value in (*body.value_info, *body.output)}
                _walk(onnx, body, scope | inner | _constants(body), found)


def _constants(graph: Any) -> dict[str, Tensor]:
    """Every initializer, with its values if they are few and in the file."""
    onnx = _onnx()
    found = {}
    for proto in graph.initializer:
        dtype, shape = _type_name(onnx, proto.data_type), tuple(proto.dims)
        value, low, high = None, None, None
        if proto.data_location != onnx.TensorProto.EXTERNAL and dtype != "string":
            array = onnx.numpy_helper.to_array(proto)
            low, high = extent(array)
            value = array.copy() if array.size <= KEPT else None
        found[proto.name] = Tensor(proto.name, dtype, shape, True, True, value, low, high)
    return found


def _outline(onnx: Any, proto: Any) -> Any:
    return onnx.TensorProto(
        name=proto.name,
        data_type=proto.data_type,
        dims=proto.dims,
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key="location", value="left-out")],
    )


def _declared(onnx: Any, value: Any) -> Tensor:
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        return Tensor(value.name)
    shape = None
    if kind.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return Tensor(value.name, _type_name(onnx, kind.elem_type), shape)


def _attribute(onnx: Any, proto: Any) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return value


def _type_name(onnx: Any, number: int) -> str | None:
    return onnx.TensorProto.DataType.Name(number).lower() if number else None


def _onnx() -> Any:
    try:
        import onnx
        import onnx.shape_inference
    except ImportError:
        raise MissingExtraError('lint needs the package onnx: pip install "tome-export[cpu]"') from None
    return onnx
