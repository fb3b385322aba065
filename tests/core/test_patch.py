"""What applying the patch changes, what it leaves alone, and what it refuses."""

import numpy as np
import paddle
import pytest

from tests.tiny_models import FAMILIES, TOKENS, random_image, tiny_model
from tome_core.errors import PatchError, ScheduleError
from tome_core.patch import apply_patch
from tome_core.schedule import make_schedule

every_family = pytest.mark.parametrize("family", list(FAMILIES))
IMAGE = random_image(0)


def run(model, image=IMAGE):
    return model(paddle.to_tensor(image)).numpy()


@every_family
def test_r_zero_is_bit_identical_to_the_unpatched_model(family):
    model = tiny_model(family)
    before = run(model)
    patched = apply_patch(model)
    np.testing.assert_array_equal(run(patched), before)  # r starts at zero
    for r in (0, [], [0, 0, 0], (0, -1.0)):
        patched.r = r
        np.testing.assert_array_equal(run(patched), before)


@every_family
def test_the_patch_keeps_the_parameters_and_the_object(family):
    model = tiny_model(family)
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    patched = apply_patch(model)
    patched.r = 5
    run(patched)
    assert patched is model
    after = patched.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name].numpy(), value)


@every_family
def test_r_can_be_set_again(family):
    patched = apply_patch(tiny_model(family))
    outputs = {}
    for r in (0, 4, 9, 0, 9, 4):
        patched.r = r
        output = run(patched)
        assert np.array_equal(output, outputs.setdefault(r, output))
    assert not np.allclose(outputs[0], outputs[4]) and not np.allclose(outputs[4], outputs[9])


@every_family
def test_int_list_and_pair_with_the_same_meaning_give_the_same_bits(family):
    patched = apply_patch(tiny_model(family))
    outputs = []
    for r in (5, [5, 5, 5], (5, 0.0)):
        patched.r = r
        outputs.append(run(patched))
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_array_equal(outputs[2], outputs[0])


@every_family
@pytest.mark.parametrize("r", [3, [10, 2], (6, -1.0), 1000], ids=str)
def test_the_source_map_has_as_many_groups_as_the_schedule_says(family, r):
    patched = apply_patch(tiny_model(family), trace_source=True)
    patched.r = r
    run(patched)
    protected = 2 if family == "deit_distilled" else 1
    schedule = make_schedule(r, 3, TOKENS[family], protected)
    for row in patched.tome.source.numpy():
        assert set(row.tolist()) == set(range(schedule.tokens[-1]))


@every_family
def test_source_is_the_identity_without_merging_and_renewed_by_every_forward(family):
    patched = apply_patch(tiny_model(family), trace_source=True)
    identity = np.tile(np.arange(TOKENS[family]), (2, 1))
    for r in (0, 6, 0):
        patched.r = r
        run(patched)
        assert np.array_equal(patched.tome.source.numpy(), identity) == (r == 0)
    patched.r = 6
    run(patched)
    first = patched.tome.source.numpy()
    run(patched)
    np.testing.assert_array_equal(patched.tome.source.numpy(), first)  # no state is left from the last image
    run(patched, random_image(1, batch=3))
    assert patched.tome.source.shape == [3, TOKENS[family]]


@every_family
def test_patching_twice_is_patching_once(family):
    model = tiny_model(family)
    once = apply_patch(model)
    once.r = 6
    expected = run(once)
    twice = apply_patch(once)
    twice.r = 6
    np.testing.assert_array_equal(run(twice), expected)


def test_patching_again_changes_the_options():
    model = apply_patch(tiny_model("vit"), prop_attn=True)
    model.r = 8
    proportional = run(model)
    model = apply_patch(model, prop_attn=False, trace_source=True)
    model.r = 8
    assert not np.allclose(run(model), proportional)
    assert model.tome.source is not None
    model = apply_patch(model, prop_attn=True)
    model.r = 8
    np.testing.assert_array_equal(run(model), proportional)


def test_patching_one_model_leaves_another_alone():
    patched, other = tiny_model("vit"), tiny_model("vit")
    before = run(other)
    apply_patch(patched).r = 9
    np.testing.assert_array_equal(run(other), before)
    second = apply_patch(other)
    second.r = 2
    assert not np.allclose(run(patched), run(second))


@pytest.mark.parametrize("r", [-1, [1, -1], [1, 2, 3, 4], "16", None, 2.5, (4, float("nan"))], ids=str)
def test_a_bad_r_is_refused_and_the_last_good_one_stays(r):
    model = apply_patch(tiny_model("vit"))
    model.r = 4
    expected = run(model)
    with pytest.raises(ScheduleError):
        model.r = r
    np.testing.assert_array_equal(run(model), expected)


@pytest.mark.parametrize(
    "model",
    [paddle.nn.Linear(3, 3), paddle.nn.Sequential(), None, "vit_b16"],
    ids=["linear", "empty", "none", "name"],
)
def test_what_is_no_vision_transformer_is_refused(model):
    with pytest.raises(PatchError):
        apply_patch(model)


@every_family
def test_a_patched_model_trains(family):
    """One gradient step with merging lowers the loss it was taken on."""
    model = apply_patch(tiny_model(family))
    model.r = 6
    model.train()
    labels = paddle.to_tensor([1, 4])
    optimizer = paddle.optimizer.SGD(1e-3, parameters=model.parameters())
    losses = []
    for _ in range(2):
        output = model(paddle.to_tensor(IMAGE))
        outputs = output if isinstance(output, (tuple, list)) else [output]
        loss = sum(paddle.nn.functional.cross_entropy(out, labels) for out in outputs)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]
