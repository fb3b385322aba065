"""Tidy the graph that paddle2onnx writes: fewer nodes, named outputs, one dynamic dimension.

Works in place on an `onnx.ModelProto` whose weights are still graph inputs (`onnx_weights` puts them in), so
that nothing here ever copies them. The first graph input is the image. Values are preserved exactly, except
that a product with a reciprocal becomes a division, which rounds once instead of twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

BATCH = "batch"
_SMALL = 1024  # elements: constants worth reading as values
_FOLDABLE = {"Less", "Cast", "Mul", "Add", "Sub", "Unsqueeze", "Reshape", "Transpose"}
_FOLDABLE |= {"Squeeze", "Range", "Shape", "Concat"}


def tidy(model: ModelProto, outputs: Sequence[str], taps: Sequence[str] = ()) -> None:
    """Apply every clean-up, rename the graph outputs to `outputs`, record all intermediate shapes, and check
    that the result is valid ONNX.

    taps: names for the graph outputs after those, which become tensors inside the graph.
    """
    _constants_to_initializers(model)
    _fold_shape_slices(model)
    _bypass(model)
    _fold_constants(model)
    _shorten_topk(model)
    _compose_transposes(model)
    _reciprocals_to_divisions(model)
    _simplify_expand(model)
    _one_hot_to_equal(model)
    _merge_equal(model)
    _share_equal_nodes(model)
    _drop_unused(model)
    _rename_outputs(model, (*outputs, *taps))
    del model.graph.output[len(outputs) :]
    _drop_unused(model)
    _name_batch(model)
    _number_nodes(model)
    _record_shapes(model)
    onnx.checker.check_model(model)


def _constants_to_initializers(model: ModelProto) -> None:
    graph, kept = model.graph, []
    for node in graph.node:
        if node.op_type == "Constant":
            tensor = next(attribute.t for attribute in node.attribute if attribute.name == "value")
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    _replace_nodes(model, kept)


def _fold_shape_slices(model: ModelProto) -> None:
    """Turn Slice(Shape(x)) into a constant where the sliced dimension is static (TopK's k arrives so)."""
    shapes = _static_shapes(model)
    constants = _constants(model)
    shape_of = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Shape"}
    kept = []
    for node in model.graph.node:
        dims = shapes.get(shape_of.get(node.input[0], "")) if node.op_type == "Slice" else None
        if dims is not None and all(name in constants for name in node.input[1:3]):
            (start,), (end,) = (constants[name].tolist() for name in node.input[1:3])
            picked = dims[start:end]
            if None not in picked:
                value = numpy_helper.from_array(np.asarray(picked, np.int64), node.output[0])
                model.graph.initializer.append(value)
                continue
        kept.append(node)
    _replace_nodes(model, kept)


def _bypass(model: ModelProto) -> None:
    """Remove nodes that return their input: Identity, times one, plus zero, a Cast to the same type."""
    constants = _constants(model)
    types = {value.name: value.type.tensor_type.elem_type for value in _values(model)}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        same = _passes_through(node, constants, types)
        if same is None:
            kept.append(node)
        else:
            renamed[node.output[0]] = same
            if same in constants:
                constants[node.output[0]] = constants[same]
    _replace_nodes(model, kept)
    for output in model.graph.output:
        output.name = renamed.get(output.name, output.name)


def _passes_through(node: NodeProto, constants: dict, types: dict) -> str | None:
    """The input that `node` returns unchanged, if it does."""
    if node.op_type == "Identity":
        return node.input[0]
    if node.op_type == "Cast" and types.get(node.input[0]) == node.attribute[0].i:
        return node.input[0]
    neutral = {"Mul": 1, "Add": 0}.get(node.op_type)
    if neutral is not None and node.input[1] in constants:
        value = constants[node.input[1]]
        if value.size == 1 and value.ndim <= 1 and value.item() == neutral:
            return node.input[0]
    return None


def _fold_constants(model: ModelProto) -> None:
    """Evaluate nodes all of whose inputs are constants."""
    constants = _constants(model)
    kept = []
    for node in model.graph.node:
        if node.op_type in _FOLDABLE and all(name in constants for name in node.input):
            graph = helper.make_graph([node], "constant", [], [onnx.ValueInfoProto(name=node.output[0])])
            for name in set(node.input):
                graph.initializer.append(numpy_helper.from_array(constants[name], name))
            single = helper.make_model(graph, opset_imports=model.opset_import)
            (value,) = ReferenceEvaluator(single).run(None, {})
            constants[node.output[0]] = value
            model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        else:
            kept.append(node)
    _replace_nodes(model, kept)


def _shorten_topk(model: ModelProto) -> None:
    """Sorting all and keeping the first r is TopK with k = r."""
    constants = _constants(model)
    producer, uses = _producers(model), _uses(model)
    kept = []
    for node in model.graph.node:
        top = producer.get(node.input[0]) if node.op_type == "Slice" else None
        if top is not None and top.op_type == "TopK" and uses[top.output[1]] == 1 and not uses[top.output[0]]:
            start, end, axis, step = (constants[name].tolist() for name in node.input[1:])
            if start == [0] and step == [1] and axis in ([1], [-1]):
                k = numpy_helper.from_array(np.asarray(end, np.int64), f"{node.output[0]}.k")
                model.graph.initializer.append(k)
                top.input[1] = k.name
                top.output[1] = node.output[0]
                continue
        kept.append(node)
    _replace_nodes(model, kept)


def _compose_transposes(model: ModelProto) -> None:
    """A transpose of a transpose that nothing else reads is one transpose."""
    producer, uses = _producers(model), _uses(model)
    gone = []
    for node in model.graph.node:
        first = producer.get(node.input[0]) if node.op_type == "Transpose" else None
        if first is not None and first.op_type == "Transpose" and uses[first.output[0]] == 1:
            inner, outer = first.attribute[0].ints, node.attribute[0].ints
            node.attribute[0].ints[:] = [inner[axis] for axis in outer]
            node.input[0] = first.input[0]
            gone.append(first)
    _replace_nodes(model, [node for node in model.graph.node if node not in gone])


def _reciprocals_to_divisions(model: ModelProto) -> None:
    producer = _producers(model)
    for node in model.graph.node:
        factor = producer.get(node.input[1]) if node.op_type == "Mul" else None
        if factor is not None and factor.op_type == "Reciprocal":
            node.op_type = "Div"
            node.input[1] = factor.input[0]


def _simplify_expand(model: ModelProto) -> None:
    """Give Expand (of what every image begins with) a target shape that shape inference can follow.

    The converter takes the larger of the tensor's own shape and the target, though only the batch differs,
    and turns the batch size into a scalar and back.
    """
    producer, constants = _producers(model), _constants(model)
    shapes = _static_shapes(model) | {name: list(value.shape) for name, value in constants.items()}
    for expand in (node for node in model.graph.node if node.op_type == "Expand"):
        own = shapes.get(expand.input[0], [None])
        larger = producer.get(expand.input[1])
        if larger is None or larger.op_type != "Max":
            continue
        makers = [producer[name] for name in larger.input if name in producer]
        target = next((node for node in makers if node.op_type == "Concat"), None)
        if target is None or not constants.keys() >= {*target.input[1:]}:
            continue
        own = [1] * (len(target.input) - len(own)) + own
        if None in own or own[0] != 1 or len(own) != len(target.input):
            continue
        asked = [constants[name].item() for name in target.input[1:]]
        if any(size not in (-1, dim) for size, dim in zip(asked, own[1:], strict=True)):
            continue
        for index, size in enumerate(own[1:], start=1):
            target.input[index] = f"{expand.output[0]}.dim{index}"
            value = numpy_helper.from_array(np.asarray([size], np.int64), target.input[index])
            model.graph.initializer.append(value)
        expand.input[1] = target.output[0]
        batch = producer.get(target.input[0])
        while batch is not None and batch.op_type in ("Squeeze", "Reshape", "Unsqueeze"):
            target.input[0] = batch.input[0]
            batch = producer.get(target.input[0])


def _one_hot_to_equal(model: ModelProto) -> None:
    """Write one-hot vectors as a comparison, several times as fast on ONNX Runtime; transposed ones too.

    The match's matrix is made of positions that are whole-number quotients of labels. Labels of a match are
    evenly spaced, so comparing them with the label of each position is the same, without the division.
    """
    constants, producer, uses = _constants(model), _producers(model), _uses(model)
    readers = {name: node for node in model.graph.node for name in node.input}
    typed = _values(_infer(model))
    whole = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.INT64}
    skipped: set[str] = set()
    kept = []
    for node in model.graph.node:
        if node.op_type != "OneHot":
            if node.output[0] not in skipped:
                kept.append(node)
            continue
        values = np.arange(constants[node.input[1]].item())
        source, values = _behind_quotient(node.input[0], values, constants, producer, whole)
        name, axis = node.output[0], 2
        reader = readers.get(name) if uses[name] == 1 else None
        if reader is not None and _swaps_last(reader):
            name, axis = reader.output[0], 1
            skipped.add(name)
        compared = {f"{name}.axis": [axis], f"{name}.values": np.expand_dims(values, (0, 3 - axis))}
        for constant, value in compared.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), constant))
        kept += [
            helper.make_node("Unsqueeze", [source, f"{name}.axis"], [f"{name}.index"]),
            helper.make_node("Equal", [f"{name}.index", f"{name}.values"], [f"{name}.equal"]),
            helper.make_node("Cast", [f"{name}.equal"], [name], to=TensorProto.FLOAT),
        ]
    _replace_nodes(model, kept)


def _swaps_last(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and list(node.attribute[0].ints) == [0, 2, 1]


def _behind_quotient(name: str, values: np.ndarray, constants: dict, producer: dict, whole: set):
    """The whole numbers that the indices `name` are computed of by adding and dividing, and what they are
    where the indices are `values`. whole: names of tensors of whole numbers."""
    found = name, values
    while (node := producer.get(name)) is not None:
        other = constants.get(node.input[1]) if node.op_type in ("Add", "Div") else None
        if other is not None and other.size == 1:
            values = values - other.item() if node.op_type == "Add" else values * other.item()
        elif node.op_type not in ("Cast", "Floor"):
            break
        name = node.input[0]
        found = (name, values) if name in whole else found
    return found


def _merge_equal(model: ModelProto) -> None:
    """Keep one copy of the small constants that the converter repeats in every block."""
    first: dict[tuple, str] = {}
    renamed = {}
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= _SMALL:
            key = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
            renamed[tensor.name] = first.setdefault(key, tensor.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _share_equal_nodes(model: ModelProto) -> None:
    """Compute once what is computed twice: the same operator with the same settings on the same inputs."""
    first: dict[tuple, NodeProto] = {}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        settings = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
        twin = first.setdefault((node.op_type, *node.input, settings), node)
        if twin is node or len(twin.output) != len(node.output):
            kept.append(node)
        else:
            renamed.update(zip(node.output, twin.output, strict=True))
    _replace_nodes(model, kept)
    for output in model.graph.output:
        output.name = renamed.get(output.name, output.name)


def _drop_unused(model: ModelProto) -> None:
    wanted = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    _replace_nodes(model, kept[::-1])
    unused = [index for index, tensor in enumerate(model.graph.initializer) if tensor.name not in wanted]
    for index in reversed(unused):
        del model.graph.initializer[index]
    del model.graph.value_info[:]


def _rename_outputs(model: ModelProto, outputs: Sequence[str]) -> None:
    renamed = {value.name: name for value, name in zip(model.graph.output, outputs, strict=True)}
    for value in model.graph.output:
        value.name = renamed[value.name]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)


def _name_batch(model: ModelProto) -> None:
    for value in (model.graph.input[0], *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH


def _number_nodes(model: ModelProto) -> None:
    """Give each node a unique name that says its type and place."""
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"


def _record_shapes(model: ModelProto) -> None:
    for value in _infer(model).graph.value_info:
        model.graph.value_info.append(value)


def _static_shapes(model: ModelProto) -> dict[str, list[int | None]]:
    """Every tensor's shape as far as it is known; None for a dynamic dimension."""
    return {
        value.name: [
            d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
        ]
        for value in _values(_infer(model))
    }


def _infer(model: ModelProto) -> ModelProto:
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _values(model: ModelProto):
    return (*model.graph.input, *model.graph.value_info, *model.graph.output)


def _constants(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _producers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _uses(model: ModelProto) -> Counter[str]:
    """How many nodes and graph outputs read each tensor."""
    read = [name for node in model.graph.node for name in node.input]
    return Counter(read + [output.name for output in model.graph.output])


def _replace_nodes(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
