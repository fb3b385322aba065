"""Make an exported ONNX graph show, or be told, the tensors inside it that carry a name of
`tome_core.schedule.tap_names`. The graph is otherwise the exported one, node for node."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from tome_export.onnx_shell import load_shell

GIVEN = "given."
"""Prefix of the graph inputs that take a tensor's place."""


def with_taps(file: Path, taps: Iterable[str], given: Collection[str] = ()) -> bytes:
    """The model in `file`, serialised, with these tensors as further outputs.

    given: names among them that the rest of the graph reads from an input, GIVEN + name, instead; the
    output is still the graph's own value. Names that the graph does not have are passed over. Weights in a
    side file stay there.
    """
    model = load_shell(file)
    graph = model.graph
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    made = {name for node in graph.node for name in node.output}
    there = [name for name in taps if name in made and name in known]
    already = {value.name for value in graph.output}
    graph.output.extend(known[name] for name in there if name not in already)
    replaced = {name: GIVEN + name for name in there if name in given}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
    for name, new in replaced.items():
        graph.input.add().CopyFrom(known[name])
        graph.input[-1].name = new
    return model.SerializeToString()
