"""The linear layers of an exported ONNX graph, and changes to them that leave the function as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

METRIC = ".metric"
"""In the names of what computes the merging metric by itself."""
_BLOCK_ENDS = re.compile(r"block(\d+)\.tokens")


@dataclass(frozen=True)
class Layer:
    """A matrix product with a constant: the block it is in, its node's name, its weight, what it writes."""

    block: int
    node: str
    weight: str
    output: str


def find_layers(model: ModelProto) -> list[Layer]:
    """The linear layers of every block, in order; those of the embedding and the head are left out.

    A layer is told from the products of the merge by its weight, which carries a state-dict name; its block
    by the tensors named in `tome_core.schedule.tap_names` that come before it.
    """
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    weights = {name for name in weights if name.endswith(".weight")}
    places = block_of(model)
    return [
        Layer(places[index], node.name, node.input[1], node.output[0])
        for index, node in enumerate(model.graph.node)
        if index in places and node.op_type == "MatMul" and node.input[1] in weights
    ]


def block_of(model: ModelProto) -> dict[int, int]:
    """Position of a node -> its block. The embedding counts as part of the first; what follows the last block
    is left out."""
    made = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    ends = sorted((made[m[0]], int(m[1])) for m in map(_BLOCK_ENDS.fullmatch, made) if m)
    found, begin = {}, 0
    for end, block in ends:
        found |= dict.fromkeys(range(begin, end + 1), block)
        begin = end + 1
    return found


def split_metric(model: ModelProto, kept: Collection[int] = ()) -> list[Layer]:
    """Give the merging metric a product of its own, so that the layer it is folded into can be quantised
    while merging goes on deciding in float; see `tome_core.folding`. Returns the layers to quantise.

    The columns [m, -m] become one product with m's, half as wide, and a negation. A block that merges by a
    metric which is not folded keeps in float the layer that the metric is made of. kept: blocks to leave.
    """
    layers = [layer for layer in find_layers(model) if layer.block not in kept]
    readers = {name: node for node in model.graph.node for name in node.input}
    merging = {
        name.partition(".")[0] for node in model.graph.node for name in node.output if ".label" in name
    }
    chosen, first = [], set()
    for layer in layers:
        is_first = layer.block not in first  # queries, keys and values come first in a block
        first.add(layer.block)
        if not is_first or f"block{layer.block}" not in merging:
            chosen.append(layer)
        elif (split := _split_after(readers, layer.output)) is not None and len(split.output) == 4:
            _cut(model, layer, split, readers[layer.output])
            chosen.append(layer)
    _drop_unread(model)
    return chosen


def _split_after(readers: dict[str, NodeProto], name: str) -> NodeProto | None:
    """The Split that reads a product, or the sum of it and a bias."""
    node = readers.get(name)
    if node is not None and node.op_type == "Add":
        node = readers.get(node.output[0])
    return node if node is not None and node.op_type == "Split" else None


def _cut(model: ModelProto, layer: Layer, split: NodeProto, after: NodeProto) -> None:
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    product = next(node for node in graph.node if node.name == layer.node)
    stem = layer.weight.removesuffix(".weight") + METRIC
    weight = numpy_helper.to_array(tensors[layer.weight])
    sizes = numpy_helper.to_array(tensors[split.input[1]])
    width, half = int(sizes[:3].sum()), int(sizes[3]) // 2
    metric = split.output.pop()
    tensors[layer.weight].CopyFrom(_tensor(weight[:, :width], layer.weight))
    graph.initializer.append(_tensor(weight[:, width : width + half], f"{stem}.weight"))
    graph.initializer.append(_tensor(sizes[:3], f"{stem}.sizes"))
    split.input[1] = f"{stem}.sizes"
    for attribute in [each for each in split.attribute if each.name == "num_outputs"]:
        split.attribute.remove(attribute)
    positive, nodes = f"{stem}.product", []
    nodes.append(helper.make_node("MatMul", [product.input[0], f"{stem}.weight"], [positive]))
    if after.op_type == "Add":
        (position,) = (index for index, name in enumerate(after.input) if name in tensors)
        bias = numpy_helper.to_array(tensors[after.input[position]])
        name = f"{stem}.rest"  # a bias may be shared with a layer that is not cut
        graph.initializer.append(_tensor(bias[..., :width], name))
        after.input[position] = name
        graph.initializer.append(_tensor(bias[..., width : width + half], f"{stem}.bias"))
        nodes.append(helper.make_node("Add", [positive, f"{stem}.bias"], [f"{stem}.half"]))
        positive = f"{stem}.half"
    nodes.append(helper.make_node("Neg", [positive], [f"{stem}.negative"]))
    nodes.append(helper.make_node("Concat", [positive, f"{stem}.negative"], [metric], axis=-1))
    for node in nodes:
        node.name = f"{stem}.{node.op_type}"
    place = next(index for index, node in enumerate(graph.node) if node is split or node == split)
    for node in reversed(nodes):
        graph.node.insert(place + 1, node)
    for value in graph.value_info:
        if value.name in (layer.output, after.output[0]) and value.name != metric:
            dims = value.type.tensor_type.shape.dim
            if len(dims) and dims[-1].dim_value == width + 2 * half:
                dims[-1].dim_value = width


def unquantised_metric(model: ModelProto) -> None:
    """Let the metric's products read what they read before quantisation, not its rounded copy."""
    producer = {node.output[0]: node for node in model.graph.node if node.output}
    for node in model.graph.node:
        if node.op_type == "MatMul" and METRIC in node.name:
            back = producer.get(node.input[0])
            if back is not None and back.op_type == "DequantizeLinear":
                node.input[0] = producer[back.input[0]].input[0]


def back_to_float(quantised: ModelProto, full: ModelProto, blocks: Collection[int]) -> ModelProto:
    """A copy of a quantised graph in which the layers of these blocks are those of `full`, which is the graph
    that it was made of, its metric split."""
    model = ModelProto()
    model.CopyFrom(quantised)
    graph = model.graph
    originals = {node.name: node for node in full.graph.node}
    weights = {tensor.name: tensor for tensor in full.graph.initializer}
    wanted = {layer.output: layer for layer in find_layers(full) if layer.block in blocks}
    nodes = []
    for node in graph.node:
        layer = wanted.get(node.output[0])
        nodes.append(node if layer is None else originals[layer.node])
    graph.initializer.extend(weights[layer.weight] for layer in wanted.values())
    live = _live(nodes, {output.name for output in graph.output})
    live = [NodeProto.FromString(node.SerializeToString()) for node in live]
    del graph.node[:]
    graph.node.extend(live)
    _drop_unread(model)
    return model


def _live(nodes: Sequence[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """Those of the sorted nodes that something wanted depends on."""
    found = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _drop_unread(model: ModelProto) -> None:
    """Remove initializers that no node reads."""
    read = {name for node in model.graph.node for name in node.input}
    tensors = model.graph.initializer
    for index in reversed(range(len(tensors))):
        if tensors[index].name not in read:
            del tensors[index]


def _tensor(array: np.ndarray, name: str) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array), name)
