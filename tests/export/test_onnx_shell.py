"""An ONNX file without its weights: the same model in a fraction of the memory, and damage is one line."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tome_export.errors import BundleError
from tome_export.onnx_shell import load_shell
from tome_export.onnx_taps import GIVEN, with_taps
from tome_export.runtimes.onnx_runtime import start_session


@pytest.fixture(scope="module")
def bundle(small_bundles):
    return small_bundles["small_deit", "r8"]


def test_the_shell_is_the_model_but_for_where_its_weights_are(bundle):
    file = bundle.path / "inference.onnx"
    whole, shell = onnx.load(file), load_shell(file)
    assert shell.ByteSize() < whole.ByteSize() / 3
    outside = {tensor.name: tensor for tensor in shell.graph.initializer}
    data = file.read_bytes()
    assert [tensor.name for tensor in whole.graph.initializer if tensor.name not in outside] == []
    moved = 0
    for tensor in whole.graph.initializer:
        mine = outside[tensor.name]
        assert (mine.data_type, list(mine.dims)) == (tensor.data_type, list(tensor.dims))
        if mine.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in mine.external_data}
            assert place["location"] == "inference.onnx"
            start, length = int(place["offset"]), int(place["length"])
            found = np.frombuffer(data[start : start + length], "<f4").reshape(mine.dims)
            moved += 1
        else:
            found = numpy_helper.to_array(mine)
        np.testing.assert_array_equal(found, numpy_helper.to_array(tensor))
    assert moved > 20
    for model in (whole, shell):
        del model.graph.initializer[:]
    assert shell == whole


def test_a_runtime_loads_it_from_the_files_it_points_at(bundle, photos):
    image = bundle.manifest.preprocess.apply(photos)
    file = bundle.path / "inference.onnx"
    whole, shell = start_session(file, file.parent), start_session(with_taps(file, ()), file.parent)
    for found, wanted in zip(
        shell.run(None, {"image": image}), whole.run(None, {"image": image}), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_taps_show_and_take_values(bundle, photos):
    image = bundle.manifest.preprocess.apply(photos[:1])
    file = bundle.path / "inference.onnx"
    session = start_session(with_taps(file, bundle.taps, {"block2.tokens"}), file.parent)
    assert [value.name for value in session.get_inputs()] == ["image", GIVEN + "block2.tokens"]
    names = [value.name for value in session.get_outputs()]
    assert names == ["logits", "sources", *bundle.taps]
    shape = [value.shape for value in session.get_outputs()][names.index("block2.tokens")]
    zeros = np.zeros([1, *shape[1:]], np.float32)
    found = dict(zip(names, session.run(None, {"image": image, GIVEN + "block2.tokens": zeros}), strict=True))
    assert np.abs(found["block2.tokens"]).max() > 0.1  # what it made of the image itself
    norm = numpy_helper.to_array(
        next(t for t in onnx.load(file).graph.initializer if t.name == "blocks.3.norm1.bias")
    )
    np.testing.assert_allclose(found["block3.norm1"][0, 0], norm, atol=1e-5)  # of the zeros it was given


def test_names_that_the_graph_does_not_have_are_passed_over(bundle):
    model = onnx.ModelProto.FromString(
        with_taps(bundle.path / "inference.onnx", ("block0.scores", "block99.scores"))
    )
    assert [value.name for value in model.graph.output] == ["logits", "sources", "block0.scores"]


@pytest.mark.parametrize("part", [0, 1, 100, 5000, -1])
def test_damage_is_one_line(part, bundle, tmp_path):
    data = (bundle.path / "inference.onnx").read_bytes()
    path = tmp_path / "inference.onnx"
    path.write_bytes(data[:part] if part >= 0 else b"\xff" * 1000)
    with pytest.raises(BundleError, match="not an ONNX model") as caught:
        load_shell(path)
    assert "\n" not in str(caught.value)
