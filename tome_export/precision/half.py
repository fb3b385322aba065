"""float16 in an exported ONNX graph, where it is safe: a change of types that a TensorRT network without a
precision of its own takes as it is.

In float16 are the linear layers of the blocks, attention's two products, the average that applies a merge,
and what lies between these (biases, GELU, changes of shape). In float32 stay image and logits, the residual
stream, LayerNorm, softmax and the scores that enter it, everything that decides a merge, sizes, the factors
of LayerScale, patch embedding and head.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tome_export.errors import ConversionError
from tome_export.precision.layers import Layer, block_of, split_metric

HALF = TensorProto.FLOAT16
LARGEST = 65504.0
"""The largest float16."""
_NAMED = re.compile(r"embed|block\d+\.\w+")  # see `tome_core.schedule.tap_names`: never float16
_BLOCK = re.compile(r"block(\d+)\.(\w+)")
_PRODUCTS = ("MatMul", "Gemm")
_LAYOUT = ("Reshape", "Split", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity")  # of the first input
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Erf", "Gelu", "Tanh", "Sigmoid", "Relu")


def to_half(model: ModelProto, kept: Collection[int] = ()) -> list[Layer]:
    """Change the graph in place; returns the linear layers that are in float16. kept: blocks to leave.

    Raises ConversionError for a weight that float16 cannot hold.
    """
    layers = split_metric(model, kept)
    chosen = {layer.node for layer in layers}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    halves = _halves(model, kept, chosen, constants)
    _check_range(model, halves, constants)
    _Rewriting(model, halves, constants).run()
    return layers


def with_overflow(model: ModelProto) -> ModelProto:
    """A copy in which what exceeds float16 becomes infinite, as on a GPU.

    ONNX Runtime's CPU provider computes in float32 whatever has no float16 kernel, and drops the rounding in
    between, so that the model itself does not overflow there.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for name, value in (("half.largest", LARGEST), ("half.infinite", np.inf)):
        graph.initializer.append(numpy_helper.from_array(np.float16(value), name))
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type in (*_PRODUCTS, "Add", "Sub", "Mul") and kinds.get(node.output[0]) == HALF:
            name, raw = node.output[0], f"{node.output[0]}.raw"
            node.output[0] = raw
            nodes += [
                helper.make_node("Abs", [raw], [f"{raw}.abs"]),
                helper.make_node("Greater", [f"{raw}.abs", "half.largest"], [f"{raw}.beyond"]),
                helper.make_node("Where", [f"{raw}.beyond", "half.infinite", raw], [name]),
            ]
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _halves(
    model: ModelProto, kept: Collection[int], chosen: Collection[str], constants: Collection[str]
) -> set[int]:
    """Positions of the nodes that compute in float16."""
    nodes, places = list(model.graph.node), block_of(model)
    exact, merging = _deciding(model), _behind(model, "merged")
    found: set[int] = set()
    half: set[str] = set()  # tensors
    for index, node in enumerate(nodes):
        if index in exact or index not in places or places[index] in kept:
            continue
        block = f"block{places[index]}"
        computed = [name for name in node.input if name and name not in constants]
        if node.op_type in _PRODUCTS:
            if len(computed) == 1:
                is_half = node.name in chosen
            else:
                # The average itself; other forms of it may add up more than float16 holds.
                average = node.output[0] == f"{block}.merged" and f"{block}.attended" in node.input
                is_half = average or index not in merging
        elif index in merging:
            is_half = False
        elif node.op_type in _LAYOUT:
            is_half = computed[:1] == list(node.input[:1]) and node.input[0] in half
        else:
            is_half = (
                node.op_type in _ELEMENTWISE
                and bool(computed)
                and half.issuperset(computed)
                and not _scales_channels(node, constants)
            )
        if is_half:
            found.add(index)
            half.update(name for name in node.output if not _NAMED.fullmatch(name))
    return found


def _scales_channels(node: NodeProto, constants) -> bool:
    """As LayerScale does, with factors that may be too small for float16."""
    return node.op_type == "Mul" and any(
        np.prod(constants[name].dims, dtype=int) > 1 for name in node.input if name in constants
    )


def _deciding(model: ModelProto) -> set[int]:
    """Positions of the nodes that similarities, labels, sizes and the output `sources` are made by."""
    outputs = {value.name for value in model.graph.output} - {"logits"}
    parts = (_behind(model, part) for part in ("scores", "label", "size"))
    return _behind(model, None, outputs).union(*parts)


def _behind(model: ModelProto, part: str | None, wanted: Iterable[str] = ()) -> set[int]:
    """Positions of the nodes that this part of every block, or these tensors, are made by, back to the named
    tensors before them."""
    maker = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    parts = (_BLOCK.fullmatch(name) for name in maker)
    todo = [*wanted, *(match[0] for match in parts if match and match[2] == part)]
    found: set[int] = set()
    targets = set(todo)
    while todo:
        name = todo.pop()
        if name not in maker or (_NAMED.fullmatch(name) and name not in targets):
            continue
        if maker[name] not in found:
            found.add(maker[name])
            todo += model.graph.node[maker[name]].input
    return found


def _check_range(model: ModelProto, halves: set[int], constants) -> None:
    places = block_of(model)
    for index in sorted(halves):
        for name in model.graph.node[index].input:
            tensor = constants.get(name)
            if tensor is None or tensor.data_type != TensorProto.FLOAT:
                continue
            value = numpy_helper.to_array(tensor)
            largest = float(np.abs(value).max(initial=0.0))
            if not largest <= LARGEST:  # NaN, too
                raise ConversionError(
                    f"{name} holds {largest:.3g}, and float16 ends at {LARGEST:.0f}; "
                    f"keep its block in float: --keep-float {places[index]}"
                )


class _Rewriting:
    """Types of tensors, and casts where they change; each tensor is cast once."""

    def __init__(self, model: ModelProto, halves: set[int], constants) -> None:
        self._graph, self._halves, self._constants = model.graph, halves, constants
        self._shapes = {value.name: value for value in model.graph.value_info}
        self._half: set[str] = set()
        self._cast: dict[tuple[str, int], str] = {}
        nodes = list(enumerate(model.graph.node))
        self._read_in_float = {name for index, node in nodes if index not in halves for name in node.input}

    def run(self) -> None:
        written = [new for index, node in enumerate(self._graph.node) for new in self._around(index, node)]
        written = [NodeProto.FromString(node.SerializeToString()) for node in written]
        del self._graph.node[:]
        self._graph.node.extend(written)

    def _around(self, index: int, node: NodeProto) -> Iterator[NodeProto]:
        """The node, with the casts that it needs."""
        is_half = index in self._halves
        for position, name in enumerate(node.input):
            if is_half and name in self._constants:
                node.input[position] = self._constant(name)
            elif is_half and (node.op_type not in _LAYOUT or position == 0) and name not in self._half:
                yield from self._casting(node, position, HALF)
            elif not is_half and name in self._half:
                yield from self._casting(node, position, TensorProto.FLOAT)
        yield node
        for position, name in enumerate(node.output if is_half else ()):
            inside = name
            if _NAMED.fullmatch(name):
                inside = f"{name}.half"
                node.output[position] = inside
                self._describe(inside, name, HALF)
                self._cast[name, HALF] = inside
                yield _cast(inside, name, TensorProto.FLOAT)
            elif name in self._shapes:
                self._shapes[name].type.tensor_type.elem_type = HALF
            self._half.add(inside)

    def _casting(self, node: NodeProto, position: int, to: int) -> Iterator[NodeProto]:
        name = node.input[position]
        if (name, to) not in self._cast:
            new = f"{name}.{'half' if to == HALF else 'float'}"
            self._cast[name, to] = new
            self._describe(new, name, to)
            yield _cast(name, new, to)
        node.input[position] = self._cast[name, to]

    def _describe(self, new: str, like: str, kind: int) -> None:
        if like in self._shapes:
            value = ValueInfoProto()
            value.CopyFrom(self._shapes[like])
            value.name, value.type.tensor_type.elem_type = new, kind
            self._graph.value_info.append(value)

    def _constant(self, name: str) -> str:
        """The name of this constant in float16; one that float32 nodes read as well is kept beside it."""
        tensor = self._constants[name]
        if tensor.data_type != TensorProto.FLOAT:
            return name
        new = f"{name}.half" if name in self._read_in_float else name
        if new not in self._constants:
            self._constants[new] = self._graph.initializer.add()
        value = numpy_helper.to_array(tensor).astype(np.float16)
        self._constants[new].CopyFrom(numpy_helper.from_array(value, new))
        return new


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"Cast.{target}", to=to)
