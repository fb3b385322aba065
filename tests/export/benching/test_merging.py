"""What counts as merging is what an unmerged model does not have."""

from collections import Counter

import numpy as np
import onnx
import pytest

from tome_export.benching.contenders import Contender, model_of
from tome_export.benching.memory import measure
from tome_export.benching.merging import merging_nodes, merging_share


def operators(bundle, counted):
    """Types of the exported graph's nodes that are or are not counted."""
    file = bundle.path / "inference.onnx"
    names = merging_nodes(file, bundle)
    return Counter(
        node.op_type
        for node in onnx.load(file, load_external_data=False).graph.node
        if (node.name in names) == counted
    )


@pytest.mark.parametrize("model", ["small_vit", "small_deit_distilled", "small_mae"])
@pytest.mark.parametrize("schedule", ["r8", "r16-decreasing"])
def test_the_rest_is_the_unmerged_model(model, schedule, small_bundles):
    merged, unmerged = small_bundles[model, schedule], small_bundles[model, "r0"]
    assert operators(merged, False) == operators(unmerged, False)
    blocks = sum(r > 0 for r in merged.manifest.tome.r)
    counted = operators(merged, True)
    assert counted["TopK"] == counted["ReduceMax"] == blocks
    assert counted["MatMul"] >= 2 * blocks  # similarities, and the product with the tokens


def test_the_share(small_bundles):
    image = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    some = merging_share(small_bundles["small_vit", "r8"], image, 1)
    assert 0.05 < some < 0.95
    assert merging_share(small_bundles["small_vit", "r0"], image, 1) < some


def test_a_graph_that_does_not_show_it(small_bundles, tmp_path):
    bundle = small_bundles["small_vit", "r8"]
    model = onnx.load(bundle.path / "inference.onnx")
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = "x" if name == "block1.merged" else name
    onnx.save(model, tmp_path / "other.onnx")
    assert merging_nodes(tmp_path / "other.onnx", bundle) is None


def test_memory_is_of_the_child_alone(small_bundles):
    """Whatever this process holds: 300 MB here do not show there."""
    bundle = small_bundles["small_vit", "r8"]
    contender = Contender(model_of(bundle), "onnx", "fp32")
    ballast = np.ones(300 * 2**20, np.uint8)
    found = measure(contender, bundle, [8, 1], "cpu", 1)
    assert found is not None and list(found.peaks) == [1, 8]
    assert 10 * 2**20 < found.empty <= found.peaks[1] <= found.peaks[8] < 250 * 2**20 < ballast.nbytes
