"""Exported models compute what the Python model computes, on photographs; what does not is caught."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.export import small
from tome_export.bundle import Bundle
from tome_export.errors import BundleError, ParityError
from tome_export.parity import BATCH_SIZES, check_runtime, compare, require
from tome_export.quiet import quiet
from tome_export.runtimes import open_runtime
from tome_export.verify import verify_bundle

TOLERANCE = 1e-4  # of the range of the logits
CLEAR = 1e-5  # similarity: ten times what two correct runtimes differ by
WAYS = {"onnx": ("onnx", {}), "onednn": ("paddle", {}), "plain": ("paddle", {"onednn": False})}
every_case = pytest.mark.parametrize("case", small.CASES, ids="-".join)


@pytest.fixture(scope="module")
def expected(small_bundles, details):
    """case -> (eight photographs as a batch, the Python model's outputs), none of them near a tie."""
    known = {}

    def of(case):
        if case not in known:
            model, schedule = case
            layer = small.build(model, small.SCHEDULES[schedule])
            images = small_bundles[case].manifest.preprocess.apply(details)
            outputs, margins = small.answers(layer, images)
            clear = np.flatnonzero(margins >= CLEAR)[:8]
            assert len(clear) == 8, f"only {len(clear)} photographs are away from ties"
            known[case] = images[clear], {name: value[clear] for name, value in outputs.items()}
        return known[case]

    return of


def agree(found, wanted, rows):
    assert small.relative(found["logits"], wanted["logits"][rows]) <= TOLERANCE
    assert found["sources"].dtype == np.int32
    np.testing.assert_array_equal(found["sources"], wanted["sources"][rows])


def raw_predictor(bundle):
    """Paddle Inference as its documentation's first example has it: every setting at its default."""
    from paddle import inference

    config = inference.Config(str(bundle.path / "inference.json"), str(bundle.path / "inference.pdiparams"))
    predictor = inference.create_predictor(config)

    def run(images):
        handle = predictor.get_input_handle(predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(images)
        predictor.run()
        outputs = [
            predictor.get_output_handle(name).copy_to_cpu().copy() for name in predictor.get_output_names()
        ]
        return dict(zip(("logits", "sources"), outputs, strict=True))

    return run


@every_case
def test_the_cases_merge_as_they_should(case, small_bundles, expected):
    """The photographs take different decisions, and enough blocks merge to show what one block hides."""
    _, wanted = expected(case)
    r = small_bundles[case].manifest.tome.r
    groups = wanted["sources"].max(axis=1) + 1
    assert (groups == small_bundles[case].manifest.tome.tokens[-1]).all()
    if case[1] != "r0":
        assert sum(count > 0 for count in r) >= 4
        assert len({row.tobytes() for row in wanted["sources"]}) == 8
    assert len({row.tobytes() for row in wanted["logits"]}) == 8


@every_case
@pytest.mark.parametrize("way", WAYS)
def test_photographs_at_batch_1_3_and_8_in_one_session(case, way, small_bundles, expected):
    images, wanted = expected(case)
    name, options = WAYS[way]
    with open_runtime(name, small_bundles[case], **options) as runtime:
        assert runtime.notes == ()  # oneDNN did run it
        for rows in (slice(0, 1), slice(0, 3), slice(0, 8), slice(5, 8), slice(3, 4), slice(0, 1)):
            agree(runtime.run(images[rows]), wanted, rows)


@every_case
def test_paddle_inference_with_nothing_set_but_the_files(case, small_bundles, expected):
    images, wanted = expected(case)
    run = raw_predictor(small_bundles[case])
    for rows in (slice(0, 3), slice(4, 5), slice(0, 8), slice(5, 8), slice(0, 3)):
        agree(run(images[rows]), wanted, rows)


@pytest.mark.parametrize("model", small.MODELS)
def test_merging_changes_the_answer(model, small_bundles, expected):
    """Else agreement between schedules, or with a graph that lost its merging, would look like success."""
    images, wanted = expected((model, "r0"))
    for schedule in ("r8", "r16", "r16-decreasing"):
        with open_runtime("onnx", small_bundles[model, schedule]) as runtime:
            assert small.relative(runtime.run(images)["logits"], wanted["logits"]) > 30 * TOLERANCE


# ---------------------------------------------------------------- what is wrong is caught


@pytest.fixture
def copy(small_bundles, tmp_path):
    """A bundle of our own to damage, and the Python model's answers to the samples its manifest names."""
    from tome_export.samples import make_batch

    bundle = small_bundles["small_vit", "r16"]
    shutil.copytree(bundle.path, tmp_path / "copy")
    manifest = bundle.manifest
    samples = manifest.parity_samples
    wanted, _ = small.answers(small.build("small_vit", 16), make_batch(samples, manifest.preprocess))
    return Bundle(tmp_path / "copy", manifest), wanted


def check(name, copy):
    bundle, wanted = copy
    with quiet():
        results = check_runtime(name, bundle, bundle.manifest.parity_samples, wanted, against="dygraph")
        require(results)
    return results


def change_onnx(bundle, change):
    path = bundle.path / "inference.onnx"
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def weight(graph, name, change):
    (tensor,) = (each for each in graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))


def transposed_projection(graph):
    """Square, so no shape check finds it; a forgotten transpose is the classic of weight conversion."""
    weight(graph, "blocks.3.attn.proj.weight", lambda value: np.ascontiguousarray(value.T))


def other_epsilon(graph):
    node = next(node for node in graph.node if "blocks.2.norm1.weight" in node.input)
    (epsilon,) = (attribute for attribute in node.attribute if attribute.name == "epsilon")
    epsilon.f = 1e-2


def lost_bias(graph):
    weight(graph, "blocks.4.norm2.bias", np.zeros_like)


def swapped_operands(graph):
    """The reverse of a division: right shapes, wrong numbers."""
    node = next(node for node in graph.node if node.op_type == "Softmax")
    (axis,) = (attribute for attribute in node.attribute if attribute.name == "axis")
    axis.i = 2


def nan_weight(graph):
    weight(graph, "head.weight", lambda value: np.where(value == value.max(), np.float32("nan"), value))


def infinite_weight(graph):
    weight(graph, "head.bias", lambda value: np.full_like(value, np.inf))


def test_undamaged_copies_pass(copy):
    for name in ("paddle", "onnx"):
        results = check(name, copy)
        assert [result.output for result in results] == ["logits", "sources"]
        assert all(result.passed and result.batch_sizes == BATCH_SIZES for result in results)
        logits, sources = results
        assert 0 < logits.max_rel < 1e-5 and logits.top1_agreement == 1 and logits.merge_agreement is None
        assert logits.cosine_min > 1 - 1e-9
        assert (sources.max_abs, sources.merge_agreement, sources.top1_agreement) == (0, 1, None)


@pytest.mark.parametrize("change", [transposed_projection, other_epsilon, lost_bias, swapped_operands])
def test_a_wrong_onnx_graph_is_caught(change, copy):
    change_onnx(copy[0], change)
    with pytest.raises(
        ParityError, match=r"^onnx logits differ from dygraph by [\d.e-]+ of their range"
    ) as e:
        check("onnx", copy)
    amount = float(str(e.value).split(" by ")[1].split()[0])
    assert amount > TOLERANCE
    assert "\n" not in str(e.value) and e.value.exit_code == 1
    check("paddle", copy)  # the other artifact is as good as before


@pytest.mark.parametrize("change", [nan_weight, infinite_weight])
def test_numbers_that_are_none_are_caught(change, copy):
    change_onnx(copy[0], change)
    with pytest.raises(ParityError, match="onnx logits differ from dygraph"):
        check("onnx", copy)


def test_a_changed_weight_of_the_paddle_model_is_caught(copy):
    path = copy[0].path / "inference.pdiparams"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    values = np.frombuffer(data, "<f4", count=16, offset=middle).copy()
    data[middle : middle + 64] = (values + 1).tobytes()
    path.write_bytes(data)
    with pytest.raises(ParityError, match="paddle (logits|sources) differ from dygraph"):
        check("paddle", copy)
    check("onnx", copy)


def test_other_merge_decisions_are_caught_by_themselves(copy):
    """The exported graph of another schedule with as many tokens left names other sources."""
    bundle, wanted = copy
    rolled = {**wanted, "sources": np.roll(wanted["sources"], 1, axis=1)}
    with pytest.raises(ParityError, match=r"onnx sources differ from dygraph for [\d.]+% of the tokens") as e:
        check("onnx", (bundle, rolled))
    assert "logits" not in str(e.value)


def judge(found, wanted, output="logits"):
    return compare(output, found, wanted, runtime="onnx", against="dygraph", precision="fp32")


def test_compare_measures_by_the_range_of_what_is_wanted():
    wanted = np.array([[0.0, 2.0, -2.0], [1.0, 0.5, 0.0]], np.float32)
    found = wanted.copy()
    found[1, 2] += 0.0002  # half of the allowed 1e-4 of the range 4
    result = judge(found, wanted)
    assert result.passed and result.max_abs == pytest.approx(2e-4, rel=1e-3)
    assert result.max_rel == pytest.approx(5e-5, rel=1e-3)
    found[0, 0] -= 0.001
    result = judge(found, wanted)
    assert not result.passed and result.max_rel == pytest.approx(2.5e-4, rel=1e-3)
    assert result.tolerance == TOLERANCE


def test_compare_counts_the_best_class_and_the_direction():
    wanted = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    result = judge(np.array([[1.0, 0.0], [1.0, 0.0]], np.float32), wanted)
    assert (result.top1_agreement, result.cosine_min, result.passed) == (0.5, 0.0, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_compare_never_passes_nan_or_infinity(bad):
    wanted = np.array([[1.0, 0.0, -1.0]], np.float32)
    found = wanted.copy()
    found[0, 1] = bad
    # Nor is a model that is NaN itself proved by a runtime that agrees.
    for pair in ((found, wanted), (wanted, found), (found, found)):
        result = judge(*pair)
        assert not result.passed and np.isfinite(result.max_abs) and np.isfinite(result.max_rel)
        with pytest.raises(ParityError):
            require([result])


def test_compare_refuses_other_shapes_and_types():
    wanted = np.zeros((2, 3), np.float32)
    for found in (np.zeros((2, 4), np.float32), np.zeros((1, 3), np.float32), np.zeros((2, 3), np.float64)):
        with pytest.raises(ParityError, match=r"onnx: logits is .*dygraph says float32 \[2, 3\]"):
            judge(found, wanted)


def test_compare_takes_integers_literally():
    wanted = np.array([[0, 1, 2, 3]], np.int32)
    result = judge(wanted.copy(), wanted, "sources")
    assert (result.passed, result.max_abs, result.merge_agreement) == (True, 0, 1)
    result = judge(np.array([[0, 1, 2, 2]], np.int32), wanted, "sources")
    assert (result.passed, result.max_abs, result.merge_agreement) == (False, 1, 0.75)


# ---------------------------------------------------------------- verify: the same without the model


def test_verify_passes_a_good_bundle(small_bundles):
    with quiet():
        results = verify_bundle(small_bundles["small_deit_distilled", "r16"].path)
    assert [(each.runtime, each.output, each.against) for each in results] == [
        ("onnx", "logits", "paddle"),
        ("onnx", "sources", "paddle"),
    ]
    assert all(each.passed for each in results)


@pytest.mark.parametrize("name", ["inference.json", "inference.pdiparams", "inference.onnx"])
def test_verify_names_the_file_with_a_changed_byte(name, copy):
    path = copy[0].path / name
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} changed; export it again") as caught:
        verify_bundle(copy[0].path)
    others = {"inference.json", "inference.pdiparams", "inference.onnx"} - {name}
    assert not any(f"{other} changed" in str(caught.value) for other in others)


def test_verify_finds_runtimes_that_disagree(copy):
    """Hashes say that nothing changed since the export; they do not say that the export was right."""
    from tome_export.bundle import sha256_of

    bundle, _ = copy
    change_onnx(bundle, transposed_projection)
    paddle, made = bundle.manifest.artifacts
    made = replace(made, files={"inference.onnx": sha256_of(bundle.path / "inference.onnx")})
    manifest = replace(bundle.manifest, artifacts=(paddle, made))
    (bundle.path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    with (
        quiet(),
        pytest.raises(ParityError, match=r"^onnx logits differ from paddle by [\d.]+ of their range"),
    ):
        verify_bundle(bundle.path)
