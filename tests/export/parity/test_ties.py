"""Exact ties go to the lower index, in dygraph, Paddle Inference and ONNX Runtime alike."""

import numpy as np
import paddle
import pytest

from tests.export import small
from tome_core.taps import tapped
from tome_export.parity.decisions import check_own, select
from tome_export.parity.judge import merging_blocks
from tome_export.parity.samples import make_batch
from tome_export.pipeline import export
from tome_export.quiet import quiet
from tome_export.runtimes import open_runtime

NAMES = ("photo:0", "noise:0", "flat:0", "half:0")


@pytest.fixture(scope="module", params=["small_vit", "small_deit_distilled", "small_mae"])
def tied(request, tmp_path_factory):
    """A model without keys and positions: all tokens of its first block are equally similar."""
    layer = small.build(request.param, 12)
    for block in layer.blocks:
        weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
        width = weight.shape[0]
        keys = np.zeros((width, width), np.float32)
        weight.set_value(np.concatenate([weight[:, :width].numpy(), keys, weight[:, 2 * width :].numpy()], 1))
        bias.set_value(
            np.concatenate([bias[:width].numpy(), np.ones(width), bias[2 * width :].numpy()]).astype(
                "float32"
            )
        )
    layer.pos_embed.set_value(paddle.zeros_like(layer.pos_embed))
    with quiet():
        bundle = export(layer, tmp_path_factory.mktemp("tied") / "out")
    return layer, bundle


def seen(way, layer, bundle, images):
    if way == "dygraph":
        with tapped(layer) as own, paddle.no_grad():
            layer(paddle.to_tensor(images))
        return {name: value.numpy() for name, value in own.items()}
    name, options = {"onnx": ("onnx", {}), "onednn": ("paddle", {}), "plain": ("paddle", {"onednn": False})}[
        way
    ]
    with quiet(), open_runtime(name, bundle, taps=True, **options) as runtime:
        return runtime.run(images)


@pytest.mark.parametrize("way", ["dygraph", "onednn", "plain", "onnx"])
def test_the_lower_index_wins(way, tied):
    layer, bundle = tied
    blocks = merging_blocks(bundle)
    assert len(blocks) >= 4
    images = make_batch(NAMES, bundle.manifest.preprocess)
    found = seen(way, layer, bundle, images)
    for index, block in blocks.items():
        for row in range(len(NAMES)):
            scores, label = found[f"block{index}.scores"][row], found[f"block{index}.label"][row]
            best = scores.max(-1)[block.sources]
            assert len(np.unique(best)) < len(best) / 2, "no ties here to break"
            np.testing.assert_array_equal(label, select(scores, block))
            assert check_own(label, scores, block).near_ties == 0
