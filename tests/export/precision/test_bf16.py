"""bf16 at the export: the engines that make it here are judged, held to the floor, and recorded."""

import numpy as np
import pytest

from examples.digits import data, train
from tests.export import small
from tome_export import export, views
from tome_export.errors import AccuracyError, RequestError
from tome_export.parity.samples import make_sample
from tome_export.parity.verify import verify_bundle
from tome_export.precision.makers import engines
from tome_export.quiet import quiet
from tome_export.runtimes import open_runtime

BF16 = {"precisions": ("fp32", "bf16")}


def _makers(manifest, formats=("paddle", "onnx")):
    try:
        return engines("bf16", manifest, formats)
    except RequestError:
        return ()


def test_what_engines_make_is_judged_and_nothing_is_added(small_bundles, tmp_path):
    makers = _makers(small_bundles["small_vit", "r8"].manifest)
    if not makers:
        with pytest.raises(RequestError, match="no runtime makes bf16 of this model here"):
            small.export_small("small_vit", tmp_path / "out", r=8, **BF16)
        return
    bundle = small.export_small("small_vit", tmp_path / "out", r=8, **BF16)
    results = bundle.manifest.precisions
    assert [(each.name, each.method, each.against) for each in results] == [
        (f"{name} bf16", "engine", "onnx fp32") for name in makers
    ]
    assert all(0 < each.figures.max_rel < 0.1 for each in results)
    assert {artifact.precision for artifact in bundle.manifest.artifacts} == {"fp32"}
    judged = [(each.runtime, each.precision, each.passed) for each in bundle.manifest.parity]
    assert judged[2:] == [(name, "bf16", True) for name in makers]
    assert f"{makers[0]} bf16: made by the engine" in views.precisions(results)


def test_below_the_floor_the_export_fails_by_the_runtimes_name(
    checkpoint, digit_folder, small_bundles, tmp_path
):
    """Paddle alone. bf16 steps by 0.004 or 0.008 around 1, so it has 1 for every weight of the head."""
    if "paddle" not in _makers(small_bundles["small_vit", "r8"].manifest):
        pytest.skip("this processor has no bf16")
    model = train.load(checkpoint, 8)
    weight = model.head.weight.numpy()  # [in, out]
    model.head.weight.set_value(1 + weight * (0.001 / abs(weight).max()))
    model.head.bias.set_value(model.head.bias.numpy() * 0)
    asked = {"preprocess": data.PRESET, "labels": data.CLASSES, "images": digit_folder / "3", **BF16}
    with (
        quiet(),
        pytest.raises(AccuracyError, match="^paddle bf16 predicts what fp32 does on [^\n]*$") as caught,
    ):
        export(model, tmp_path / "out", formats=("paddle",), **asked)
    assert "no blocks to keep in float" in str(caught.value).replace("takes no", "no")
    assert list(tmp_path.iterdir()) == []


def test_tokens_beyond_256_are_counted(tmp_path):
    """Odd numbers above 256 are not bf16 numbers: labels in bf16 would merge what must not merge."""
    bundle = small.export_small(
        "small_vit", tmp_path / "out", r=24, image_size=136, outputs=("logits", "sources")
    )
    assert bundle.manifest.tome.tokens[0] == 290
    makers = _makers(bundle.manifest)
    if not makers:
        pytest.skip("this processor has no bf16")
    with quiet():
        found = verify_bundle(
            bundle.path, against="onnx", samples=3, runtimes=[f"{name}:bf16" for name in makers]
        )
        assert found.passed and all(block.faults == 0 for each in found.results for block in each.blocks)
        # The graph as it is shipped, too: every group that it names is one of the last tokens, none is empty.
        image = make_sample("photo:0", bundle.manifest.preprocess)[None]
        for name in makers:
            with open_runtime(name, bundle, precision="bf16") as runtime:
                sources = runtime.run(image)["sources"]
            np.testing.assert_array_equal(np.unique(sources), np.arange(bundle.manifest.tome.tokens[-1]))
