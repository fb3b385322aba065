"""The ONNX graph: small, static but for the batch, without what other runtimes reject, readable."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.export import small
from tome_core.schedule import make_schedule, tap_names
from tome_export import manifest as m
from tome_export.bundle import BundleWriter
from tome_export.errors import ConversionError, RequestError
from tome_export.onnx import OPSETS, check_opset, convert_to_onnx
from tome_export.onnx_graph import tidy
from tome_export.onnx_weights import _varint
from tome_export.quiet import quiet
from tome_export.runtimes import open_runtime

NODES_PER_BLOCK = 60
every_case = pytest.mark.parametrize("case", small.CASES, ids="-".join)


@pytest.fixture(scope="module")
def graphs(small_bundles):
    """case -> its ONNX model, loaded once."""
    return {case: onnx.load(bundle.path / "inference.onnx") for case, bundle in small_bundles.items()}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A Paddle model of logits only, and the folder of its weights, as the converter gets them."""
    from tome_export.trace import save_inference_model

    folder = tmp_path_factory.mktemp("traced")
    with quiet():
        save_inference_model(small.build("small_vit", 16), ["logits"], small.SIZE, folder, folder / "weights")
    return folder


TAPS = tap_names(make_schedule(16, small.DEPTH, 65).r)


def opset_of(model):
    (version,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return version


def dims(value):
    return [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]


def blocks_of(model, depth):
    """The nodes of each block: from its norm1 to the residual addition that ends it, in the file's order."""
    nodes = list(model.graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    norms = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            if name.endswith("norm1.weight"):
                norms[int(name.split(".")[1])] = index
    assert sorted(norms) == list(range(depth))
    found = []
    for block in range(depth):
        start = norms[block]
        assert nodes[start].op_type == "LayerNormalization"
        (last_matmul,) = (i for i, n in enumerate(nodes) if f"blocks.{block}.mlp.fc2.weight" in n.input)
        bias = next(i for i, n in enumerate(nodes) if nodes[last_matmul].output[0] in n.input)
        end = next(i for i, n in enumerate(nodes) if nodes[bias].output[0] in n.input)
        assert [nodes[i].op_type for i in (last_matmul, bias, end)] == ["MatMul", "Add", "Add"]
        if block + 1 < depth:
            assert producer[nodes[norms[block + 1]].input[0]] == end
        found.append(nodes[start : end + 1])
    return found


@every_case
def test_the_recorded_opset_is_the_one_in_the_file(case, small_bundles, graphs):
    assert small_bundles[case].artifact("onnx").opset == opset_of(graphs[case]) == 17


@every_case
def test_no_operator_that_other_runtimes_reject_or_ignore(case, graphs):
    model = graphs[case]
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}
    for node in model.graph.node:
        assert node.domain in ("", "ai.onnx")
        assert node.op_type not in ("Identity", "Constant", "Loop", "If", "Scan", "NonZero", "Unique")
        if node.op_type in ("ScatterElements", "ScatterND"):
            assert all(a.s == b"none" for a in node.attribute if a.name == "reduction"), node.name


@every_case
def test_only_the_batch_is_dynamic(case, graphs):
    model = graphs[case]
    (image,) = model.graph.input
    assert (image.name, dims(image)) == ("image", [None, 3, small.SIZE, small.SIZE])
    tokens = 66 if "distilled" in case[0] else 65
    logits, sources = model.graph.output
    assert (logits.name, dims(logits)) == ("logits", [None, small.CLASSES])
    assert (sources.name, dims(sources)) == ("sources", [None, tokens])
    assert sources.type.tensor_type.elem_type == TensorProto.INT32

    recorded = {value.name: dims(value) for value in model.graph.value_info}
    recorded |= {value.name: dims(value) for value in model.graph.output}
    for node in model.graph.node:
        for name in filter(None, node.output):
            assert name in recorded, f"{node.name} has no recorded shape"
            assert None not in recorded[name][1:], f"{node.name}: {recorded[name]}"
            # A graph without a batch would be static too. Only shape arithmetic does without one.
            assert recorded[name][:1] == [None] or node.op_type in ("Shape", "Slice", "Concat", "Reshape")


@every_case
def test_shapes_do_not_depend_on_data(case, graphs):
    """Every target shape, k and depth is a constant; only Expand computes, with the batch."""
    model = graphs[case]
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Reshape", "TopK", "OneHot", "Unsqueeze", "Split"):
            assert node.input[1] in constants, node.name
        if node.op_type == "Slice" and node.output[0] != "Slice.1":
            assert set(node.input[1:]) <= constants, node.name
    assert sum(node.op_type == "Expand" for node in model.graph.node) <= 2
    assert sum(node.op_type == "Shape" for node in model.graph.node) <= 2


def test_the_recorded_shapes_are_those_of_a_run(graphs):
    """They were inferred; here they are computed."""
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(graphs["small_deit_distilled", "r16"])
    recorded = {value.name: value for value in model.graph.value_info}
    del model.graph.output[:]
    model.graph.output.extend(recorded.values())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((2, 3, small.SIZE, small.SIZE), np.float32)
    assert len(recorded) > 250
    for (name, value), found in zip(recorded.items(), session.run(None, {"image": image}), strict=True):
        assert list(found.shape) == [2 if size is None else size for size in dims(value)], name


def test_at_most_sixty_nodes_a_block(traced, tmp_path):
    convert(traced, tmp_path)
    model = onnx.load(tmp_path / "inference.onnx")
    sizes = [len(block) for block in blocks_of(model, small.DEPTH)]
    assert max(sizes) <= NODES_PER_BLOCK, sizes
    # Nothing hides between the blocks: what is outside is the embedding and the head.
    assert len(model.graph.node) - sum(sizes) <= 25


@every_case
def test_weights_have_their_state_dict_names_and_values(case, graphs):
    model = graphs[case]
    layer = small.build(case[0], 0)
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert set(state) <= set(held)
    for name, value in state.items():
        if ".attn.qkv." not in name:  # queries are scaled there, and the mean of the keys appended
            np.testing.assert_array_equal(held[name], value)
    for name, value in held.items():
        assert name in state or value.size <= 66 * 66, f"{name} {value.shape} is no parameter"


@every_case
def test_names_are_unique_and_nothing_is_unused(case, graphs):
    graph = graphs[case].graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert {tensor.name for tensor in graph.initializer} <= read
    assert all(read.intersection(node.output) for node in graph.node)
    onnx.checker.check_model(graphs[case], full_check=True)


# ---------------------------------------------------------------- conversion


def convert(traced, folder, **changes):
    for name in ("inference.json", "inference.debug.json", "inference.pdiparams"):
        (folder / name).write_bytes((traced / name).read_bytes())
    with quiet():
        arguments = {"outputs": ["logits"], "taps": TAPS} | changes
        return convert_to_onnx(folder, traced / "weights", **arguments)


def run_onnx(path, image):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


@pytest.mark.parametrize("opset", [13, 16, 19])
def test_other_opsets_say_what_they_became_and_compute_the_same(opset, traced, tmp_path, details):
    written, files = convert(traced, tmp_path, opset=opset)
    model = onnx.load(tmp_path / "inference.onnx")
    assert files == ["inference.onnx"]
    assert written == opset_of(model) == opset
    normalised = sum(node.op_type == "LayerNormalization" for node in model.graph.node)
    # Two in each block, the merging metric's, and the one before the head.
    assert normalised == (3 * small.DEPTH + 1 if opset >= 17 else 0)
    agrees_on_photographs(tmp_path / "inference.onnx", details)


def test_an_opset_that_is_too_low_is_raised_and_the_record_says_so(traced, tmp_path, details):
    """Past `check_opset`, which refuses it: the converter chooses another without asking."""
    written, _ = convert(traced, tmp_path, opset=7)
    assert written == opset_of(onnx.load(tmp_path / "inference.onnx")) > 7
    agrees_on_photographs(tmp_path / "inference.onnx", details)


def agrees_on_photographs(path, details):
    from tome_export.preprocess import preset

    images = preset("vit", small.SIZE).apply(details)
    wanted, margins = small.answers(small.build("small_vit", 16), images)
    clear = margins >= 1e-5
    assert clear.sum() >= 8
    assert small.relative(run_onnx(path, images[clear]), wanted["logits"][clear]) <= 1e-4


@pytest.mark.parametrize("opset", [-1, 0, 7, 12, 21, 99])
def test_opsets_out_of_reach_are_refused(opset):
    with pytest.raises(RequestError, match=f"opset {opset} is not one of 13 to 20"):
        check_opset(opset)


def test_every_opset_offered_is_accepted():
    assert [check_opset(opset) for opset in OPSETS] == list(range(13, 21))


def test_a_converter_that_fails_or_dies_is_an_error_of_ours(traced, tmp_path):
    for name, text in {
        "empty": "",
        "cut": (traced / "inference.debug.json").read_text()[:5000],
        "list": "[]",
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "inference.debug.json").write_text(text)
        with quiet(), pytest.raises(ConversionError, match="paddle2onnx could not convert") as caught:
            convert_to_onnx(folder, traced / "weights", ["logits"], TAPS)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
        assert sorted(path.name for path in folder.iterdir()) == ["inference.debug.json"]


def test_an_operator_that_the_converter_does_not_know(traced, tmp_path):
    """With auto-upgrade, paddle2onnx aborts its process on these; the folder must hold no half of a model."""
    text = (traced / "inference.debug.json").read_text()
    json.loads(text)
    assert '"1.layer_norm"' in text
    (tmp_path / "inference.debug.json").write_text(text.replace('"1.layer_norm"', '"1.lu_unpack"'))
    with quiet(), pytest.raises(ConversionError, match="paddle2onnx could not convert"):
        convert_to_onnx(tmp_path, traced / "weights", ["logits"], TAPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inference.debug.json"]


# ---------------------------------------------------------------- weights of more than protobuf can hold

SIDE_FILE = """
import sys
from tome_export import onnx_child, onnx_weights
onnx_weights._PROTOBUF_LIMIT = 100_000
onnx_child.main(*sys.argv[1:])
"""


@pytest.fixture(scope="module")
def side_file(traced, tmp_path_factory, child):
    """What the conversion writes when the weights are too many for one file."""
    folder = tmp_path_factory.mktemp("side")
    path = folder / "inference.onnx"
    done = child(
        SIDE_FILE, traced / "inference.debug.json", traced / "weights", path, 17, "logits", ",".join(TAPS)
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_weights_that_protobuf_cannot_hold_go_to_a_side_file(side_file, details):
    path = side_file / "inference.onnx"
    assert sorted(each.name for each in side_file.iterdir()) == ["inference.onnx", "inference.onnx.data"]
    onnx.checker.check_model(str(path), full_check=True)

    bare = onnx.load(path, load_external_data=False)
    outside = [tensor for tensor in bare.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    layer = small.build("small_vit", 0)
    assert {tensor.name for tensor in outside} == set(layer.state_dict())
    for tensor in outside:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == "inference.onnx.data" and int(place["offset"]) % 4096 == 0

    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    for name, value in layer.state_dict().items():
        if ".attn.qkv." not in name:
            np.testing.assert_array_equal(values[name], value.numpy())
    agrees_on_photographs(path, details)


def test_a_bundle_with_a_side_file_lists_and_opens_it(side_file, tmp_path, small_bundles, details):
    source = small_bundles["small_vit", "r16"].manifest
    names = ["inference.onnx", "inference.onnx.data"]
    with BundleWriter(tmp_path / "bundle") as writer:
        for name in names:
            (writer.folder / name).write_bytes((side_file / name).read_bytes())
        artifact = m.Artifact("onnx", "fp32", dict.fromkeys(names, ""), 17)
        bundle = writer.commit(replace(source, artifacts=(artifact,), outputs=source.outputs[:1]))
    bundle.verify_hashes()
    assert list(bundle.file_sizes()) == names
    images = source.preprocess.apply(details[:2])
    with open_runtime("onnx", bundle) as runtime:
        found = runtime.run(images)["logits"]
    np.testing.assert_array_equal(found, run_onnx(side_file / "inference.onnx", images))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**40 + 5])
def test_varints(value):
    """Decoded by the definition: seven bits a byte, lowest first, the top bit set on all but the last."""
    data = _varint(value)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data)) == value
    assert all(byte & 0x80 for byte in data[:-1]) and not data[-1] & 0x80


# ---------------------------------------------------------------- clean-up, on graphs made by hand


def hand_made(nodes, inputs=None, constants=None, output=("y", [None, 4])):
    graph = helper.make_graph(
        nodes,
        "hand_made",
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
            for n, s in (inputs or {"x": [None, 4]}).items()
        ],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def evaluate(model, x):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})[0]


X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
ONE, TWO = np.array([1], np.float32), np.array([2], np.float32)


def tidied(model, x=X):
    before = evaluate(model, x)
    tidy(model, ["out"])
    np.testing.assert_array_equal(evaluate(model, x), before)
    return [node.op_type for node in model.graph.node]


def test_what_does_nothing_is_removed_and_the_rest_is_kept():
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Mul", ["a", "one"], ["b"]),
        helper.make_node("Add", ["b", "zero"], ["c"]),
        helper.make_node("Mul", ["c", "two"], ["d"]),
        helper.make_node("Add", ["d", "one"], ["e"]),
        helper.make_node("Cast", ["e"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["x"], ["nobody reads this"]),
        helper.make_node("Identity", ["f"], ["y"]),
    ]
    model = hand_made(nodes, constants={"one": ONE, "two": TWO, "zero": ONE * 0})
    assert tidied(model) == ["Mul", "Add"]
    assert [value.name for value in model.graph.output] == ["out"]
    assert {tensor.name for tensor in model.graph.initializer} == {"one", "two"}


def test_a_neutral_constant_that_changes_the_shape_is_kept():
    nodes = [helper.make_node("Add", ["x", "zeros"], ["y"])]
    zeros = np.zeros((1, 1, 1), np.float32)  # adds an axis
    model = hand_made(nodes, constants={"zeros": zeros}, output=("y", [1, None, 4]))
    assert tidied(model) == ["Add"]


def test_a_sort_of_which_the_first_are_taken_becomes_a_shorter_topk():
    nodes = [
        helper.make_node("TopK", ["x", "four"], ["values", "order"], axis=1),
        helper.make_node("Slice", ["order", "start", "end", "axis", "step"], ["first"]),
        helper.make_node("Cast", ["first"], ["y"], to=TensorProto.FLOAT),
    ]
    numbers = {"four": 4, "start": 0, "end": 2, "axis": 1, "step": 1}
    constants = {name: np.array([number], np.int64) for name, number in numbers.items()}
    model = hand_made(nodes, constants=constants, output=("y", [None, 2]))
    assert tidied(model) == ["TopK", "Cast"]
    (k,) = (numpy_helper.to_array(t) for t in model.graph.initializer)
    assert k.tolist() == [2]


def test_a_slice_that_does_not_start_at_the_best_stays():
    nodes = [
        helper.make_node("TopK", ["x", "four"], ["values", "order"], axis=1),
        helper.make_node("Slice", ["order", "start", "end", "axis", "step"], ["first"]),
        helper.make_node("Cast", ["first"], ["y"], to=TensorProto.FLOAT),
    ]
    numbers = {"four": 4, "start": 1, "end": 3, "axis": 1, "step": 1}
    constants = {name: np.array([number], np.int64) for name, number in numbers.items()}
    assert tidied(hand_made(nodes, constants=constants, output=("y", [None, 2]))) == ["TopK", "Slice", "Cast"]


def test_two_transposes_become_one_but_not_if_both_are_read():
    def nodes(*more):
        return [
            helper.make_node("Transpose", ["x"], ["a"], perm=[1, 2, 0]),
            helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
            *more,
        ]

    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    shape = {"inputs": {"x": [None, 3, 4]}}
    model = hand_made(nodes(helper.make_node("Relu", ["b"], ["y"])), **shape, output=("y", [3, None, 4]))
    assert tidied(model, x) == ["Transpose", "Relu"]
    both = [helper.make_node("ReduceSum", ["a"], ["s"]), helper.make_node("Add", ["b", "s"], ["y"])]
    model = hand_made(nodes(*both), **shape, output=("y", [3, None, 4]))
    assert tidied(model, x) == ["Transpose", "Transpose", "ReduceSum", "Add"]


def test_equal_constants_are_kept_once_and_different_ones_apart():
    constants = {"a": TWO, "b": TWO.copy(), "c": np.array([2], np.int64), "d": ONE * 3}
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["p"]),
        helper.make_node("Mul", ["p", "b"], ["q"]),
        helper.make_node("Mul", ["q", "d"], ["s"]),
        helper.make_node("Unsqueeze", ["s", "c"], ["y"]),
    ]
    model = hand_made(nodes, constants=constants, output=("y", [None, 4, 1]))
    assert tidied(model) == ["Mul", "Mul", "Mul", "Unsqueeze"]
    assert [node.input[1] for node in model.graph.node] == ["a", "a", "d", "c"]


def test_one_hot_vectors_become_comparisons():
    """As a match's matrix is made: of labels -3, -1, 1 and 3, by adding 3 and halving, transposed."""
    numbers = {"three": np.array([3], np.float32), "two": TWO, "depth": np.array(4)}
    numbers["values"] = np.array([0, 1], np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["label"], to=TensorProto.INT64),
        helper.make_node("Cast", ["label"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["number", "three"], ["sum"]),
        helper.make_node("Div", ["sum", "two"], ["half"]),
        helper.make_node("Floor", ["half"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["place"], to=TensorProto.INT64),
        helper.make_node("OneHot", ["place", "depth", "values"], ["one_hot"]),
    ]
    transposed = [*nodes, helper.make_node("Transpose", ["one_hot"], ["y"], perm=[0, 2, 1])]
    labels = np.array([[-3, 3, -1, 1, 1], [1, -1, -3, 3, -3]], np.float32)
    shape = {"inputs": {"x": [None, 5]}, "constants": numbers}
    comparison = ["Cast", "Unsqueeze", "Equal", "Cast"]
    assert tidied(hand_made(transposed, **shape, output=("y", [None, 4, 5])), labels) == comparison

    read_twice = [*transposed[:-1], helper.make_node("Transpose", ["one_hot"], ["turned"], perm=[0, 2, 1])]
    read_twice.append(helper.make_node("MatMul", ["one_hot", "turned"], ["y"]))
    model = hand_made(read_twice, **shape, output=("y", [None, 5, 5]))
    assert tidied(model, labels) == [*comparison, "Transpose", "MatMul"]
    twice = [*transposed[:-1], helper.make_node("Transpose", ["one_hot"], ["turned"], perm=[0, 2, 1])]
    twice.append(helper.make_node("Transpose", ["turned"], ["y"], perm=[0, 2, 1]))
    model = hand_made(twice, **shape, output=("y", [None, 5, 4]))
    assert tidied(model, labels)[:4] == comparison
