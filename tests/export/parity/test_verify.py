"""A finished bundle is proved again: against dygraph, Paddle or ONNX, and damage to its files is found."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.export import small
from tome_export.bundle import Bundle, sha256_of
from tome_export.errors import BundleError, ParityError, RequestError
from tome_export.parity.rebuild import rebuild
from tome_export.parity.verify import verify_bundle
from tome_export.quiet import quiet


def verify(bundle, **asked):
    with quiet(), small.registered():
        return verify_bundle(bundle.path, **{"samples": 2, "rebuild": rebuild} | asked)


@pytest.fixture
def copy(small_bundles, tmp_path):
    """A bundle of our own to damage."""
    shutil.copytree(small_bundles["small_vit", "r8"].path, tmp_path / "copy")
    return Bundle.open(tmp_path / "copy")


def change_onnx(bundle, change):
    """Change the graph as if it had been exported so: the manifest's hash follows."""
    path = bundle.path / "inference.onnx"
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    paddle, made = bundle.manifest.artifacts
    made = replace(made, files={"inference.onnx": sha256_of(path)})
    manifest = replace(bundle.manifest, artifacts=(paddle, made))
    (bundle.path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")


def weight(graph, name, change):
    (tensor,) = (each for each in graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))


def transposed_projection(graph):
    weight(graph, "blocks.3.attn.proj.weight", lambda value: np.ascontiguousarray(value.T))


def other_epsilon(graph):
    node = next(node for node in graph.node if "blocks.2.norm1.weight" in node.input)
    (epsilon,) = (attribute for attribute in node.attribute if attribute.name == "epsilon")
    epsilon.f = 1e-5


def lost_bias(graph):
    weight(graph, "blocks.4.norm2.bias", np.zeros_like)


def wrong_softmax(graph):
    node = next(node for node in graph.node if node.op_type == "Softmax")
    (axis,) = (attribute for attribute in node.attribute if attribute.name == "axis")
    axis.i = 2


def nan_weight(graph):
    weight(graph, "blocks.1.mlp.fc1.bias", lambda value: np.full_like(value, np.nan))


def infinite_head(graph):
    weight(graph, "head.bias", lambda value: np.full_like(value, np.inf))


def other_head(graph):
    weight(graph, "head.weight", lambda value: value * np.float32(1.001))


CHANGES = {
    transposed_projection: ("attention", 3),
    other_epsilon: ("norm", 2),
    lost_bias: ("norm", 4),
    wrong_softmax: ("attention", 0),
    nan_weight: ("mlp", 1),
    infinite_head: ("head", None),
    other_head: ("head", None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("against", ["dygraph", "paddle"])
def test_a_wrong_onnx_graph_is_caught_where_it_is_wrong(change, against, copy):
    change_onnx(copy, change)
    found = verify(copy, against=against, batch_sizes=(1,))
    made = found.results[-1]
    assert made.runtime == "onnx" and not made.passed
    assert (made.findings[0].part, made.findings[0].block) == CHANGES[change], made.findings
    assert all(result.passed for result in found.results[:-1])  # the other artifact is as good as before
    with pytest.raises(ParityError, match=f"^onnx against {against}: ") as caught:
        found.require()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1


@pytest.mark.parametrize("against", ["dygraph", "paddle", "onnx"])
@pytest.mark.parametrize(
    "case", [("small_deit_distilled", "r16"), ("small_mae", "r16-decreasing"), ("small_vit", "r0")]
)
def test_a_good_bundle_passes_against_each(case, against, small_bundles):
    bundle = small_bundles[case]
    found = verify(bundle, against=against, samples=6)
    assert found.passed and found.against == against
    judged = {"dygraph": ["paddle", "onnx"], "paddle": ["onnx"], "onnx": ["paddle"]}[against]
    assert [result.runtime for result in found.results] == judged
    for result in found.results:
        assert result.against == against and result.inputs == 6 and result.batch_sizes == (1, 3)
        assert 0 < result.forced.max_rel < 2e-6 and result.forced.cosine_min > 1 - 1e-9
        assert result.max_rel < 2e-6 or result.near_ties  # a merge that hangs on rounding changes the logits
        assert result.top1_agreement == 1
        merging = [block for block in result.blocks if block.r]
        assert len(merging) == sum(r > 0 for r in bundle.manifest.tome.r)
        assert sum(block.decisions for block in merging) == result.decisions
        assert all(block.agreed + block.near_ties == block.decisions for block in merging)
        assert result.near_ties <= 2


def test_without_asking_it_is_dygraph_where_that_can_be_built(small_bundles):
    bundle = small_bundles["small_vit", "r8"]
    assert verify(bundle).against == "dygraph"
    assert verify(bundle, rebuild=None).against == "onnx"
    with pytest.raises(RequestError, match="no Python model here"):
        verify(bundle, rebuild=None, against="dygraph")


def test_groups_are_drawn_for_everyone(small_bundles):
    bundle = small_bundles["small_deit", "r16"]
    found = verify(bundle)
    assert list(found.groups) == ["dygraph", "paddle fp32", "onnx fp32"]
    for groups in found.groups.values():
        assert groups.shape == (65,) and groups.max() + 1 == bundle.manifest.tome.tokens[-1]
        np.testing.assert_array_equal(groups, found.groups["dygraph"])


def test_on_photographs(small_bundles, photos, tmp_path):
    for index, photo in enumerate(photos):
        photo.save(tmp_path / f"{index}.png")
    found = verify(small_bundles["small_deit", "r16"], images=tmp_path, batch_sizes=(1, 4))
    assert found.passed and [name.rpartition("/")[2] for name in found.inputs] == ["0.png", "1.png", "2.png"]
    assert found.picture == str(tmp_path / "0.png")


@pytest.mark.parametrize(
    "name", ["inference.json", "inference.debug.json", "inference.pdiparams", "inference.onnx"]
)
def test_the_file_with_a_changed_byte_is_named(name, copy):
    path = copy.path / name
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"as exported: {name} changed; export it again"):
        verify(copy)


def test_a_changed_weight_of_the_paddle_model(copy):
    """Hashes say that nothing changed since the export; they do not say that the export was right."""
    path = copy.path / "inference.pdiparams"
    weights = small.build("small_vit", 8).blocks[3].mlp.fc2.weight.numpy()
    data = path.read_bytes()
    assert data.count(weights.tobytes()) == 1
    path.write_bytes(data.replace(weights.tobytes(), (-weights).tobytes()))
    made, other = copy.manifest.artifacts
    made = replace(made, files=made.files | {path.name: sha256_of(path)})
    manifest = replace(copy.manifest, artifacts=(made, other))
    (copy.path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    for against in ("dygraph", "onnx"):
        found = verify(copy, against=against, batch_sizes=(1,))
        assert (found.results[0].findings[0].part, found.results[0].findings[0].block) == ("mlp", 3)
        assert all(result.passed for result in found.results[1:])


def test_a_debug_variant_that_is_another_graph_proves_nothing(copy, tmp_path):
    """All that is seen inside comes from there, so its logits must be those of the graph that is shipped."""
    from paddle.utils import unique_name

    for name, prop_attn in (("with", True), ("without", False)):
        with unique_name.guard():
            small.export_small("small_vit", tmp_path / name, r=8, prop_attn=prop_attn, formats=["paddle"])
    shutil.copy(tmp_path / "without" / "inference.json", tmp_path / "with" / "inference.json")
    bundle = Bundle.open(tmp_path / "with")
    (made,) = bundle.manifest.artifacts
    made = replace(made, files=made.files | {"inference.json": sha256_of(bundle.path / "inference.json")})
    (bundle.path / "manifest.json").write_text(replace(bundle.manifest, artifacts=(made,)).to_json())
    (result,) = verify(bundle, batch_sizes=(1,)).results
    (finding,) = result.findings
    assert finding.part == "outputs" and "the shipped graph's logits differ" in finding.what


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"against": "torch"}, "no reference 'torch'"),
        ({"batch_sizes": (1, 0)}, "at least one image, not 0"),
        ({"samples": 0}, "at least one sample"),
        ({"weights": "x.pdparams"}, "random weights"),
        ({"weights": "x.pdparams", "against": "onnx"}, "goes with --against dygraph"),
    ],
)
def test_a_wrong_request_is_refused(asked, said, small_bundles):
    with pytest.raises(RequestError, match=said):
        verify(small_bundles["small_vit", "r8"], **asked)


def test_a_bundle_from_a_file_needs_the_file_for_dygraph(tmp_path):
    import paddle

    layer = small.build("small_vit", 0)
    paddle.save(layer.state_dict(), str(tmp_path / "weights.pdparams"))
    bundle = small.export_small(
        "small_vit", tmp_path / "out", r=4, weights=str(tmp_path / "weights.pdparams")
    )
    assert verify(bundle).against == "onnx"
    with pytest.raises(
        RequestError, match=r"needs the file it was made of \(weights.pdparams\): add --weights"
    ):
        verify(bundle, against="dygraph")
    found = verify(bundle, weights=str(tmp_path / "weights.pdparams"))
    assert found.against == "dygraph" and found.passed
    paddle.save({**layer.state_dict(), "head.bias": paddle.ones([11])}, str(tmp_path / "other.pdparams"))
    with pytest.raises(RequestError, match="(?i)sha-?256"):
        verify(bundle, weights=str(tmp_path / "other.pdparams"))
