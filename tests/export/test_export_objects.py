"""`export` on model objects: our own, look-alikes of other projects' classes, PaddleClas itself."""

import importlib

import numpy as np
import paddle
import pytest

from tests import foreign_models
from tests.tiny_models import randomise, tiny_model
from tome_core import apply_patch
from tome_core.errors import PatchError, RequestError
from tome_export import export, open_runtime
from tome_export.quiet import quiet

SHAPE = {"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
PADDLECLAS = {
    "VisionTransformer": ("vision_transformer", {"qkv_bias": True, "epsilon": 1e-6}),
    "ViT_small": ("vision_transformer", {"mlp_ratio": 3, "qk_scale": 24**-0.5}),
    "DistilledVisionTransformer": ("distilled_vision_transformer", {"qkv_bias": True, "epsilon": 1e-6}),
}


def check_bundle(bundle, model, r):
    """Every runtime gives what the object gives in dygraph, patched with r, on a batch of its own."""
    image = np.random.default_rng(5).normal(size=(2, 3, 48, 48)).astype("float32")
    if not hasattr(model, "tome"):
        apply_patch(model, trace_source=True)
    model.eval()
    model.tome.trace_source = True
    model.r = r
    with paddle.no_grad():
        logits = model(paddle.to_tensor(image)).numpy()
    for name in ("paddle", "onnx"):
        with quiet(), open_runtime(name, bundle) as runtime:
            outputs = runtime.run(image)
        assert np.abs(outputs["logits"] - logits).max() <= 1e-4 * np.ptp(logits)
        np.testing.assert_array_equal(outputs["sources"], model.tome.source.numpy())


def export_quietly(model, out, **options):
    with quiet():
        return export(model, out, outputs=("logits", "sources"), **options)


def test_a_patched_object_keeps_its_schedule_and_is_left_as_it_was(tmp_path):
    model = apply_patch(tiny_model("vit"), prop_attn=False)
    model.r = [7, 0, 5]
    model.train()
    bundle = export_quietly(model, tmp_path / "out")
    assert bundle.manifest.tome.r == (7, 0, 5)
    assert bundle.manifest.tome.tokens == (37, 30, 30, 25)
    assert not bundle.manifest.tome.prop_attn
    assert model.training and model.r == [7, 0, 5] and not model.tome.trace_source
    check_bundle(bundle, model, [7, 0, 5])


@pytest.mark.parametrize("r", [None, 3])
def test_an_object_traced_for_training_is_exported_afresh_and_stays_traced(r, tmp_path):
    model = apply_patch(tiny_model("vit"))
    model.r = 7
    model.train()
    traced = paddle.jit.to_static(model, full_graph=True)
    image = paddle.ones([2, 3, 48, 48])
    before = traced(image).numpy()
    bundle = export_quietly(traced, tmp_path / "out", r=r)
    assert bundle.manifest.tome.r == (r or 7,) * 3
    np.testing.assert_array_equal(traced(image).numpy(), before)
    assert model.r == 7 and model.training and model.forward.get_traced_count() == 1
    model.forward.rollback()
    check_bundle(bundle, model, r or 7)


def test_an_unpatched_object_is_not_touched(tmp_path):
    model = tiny_model("deit_distilled")
    keys, kind = list(model.state_dict()), type(model)
    bundle = export_quietly(model, tmp_path / "out", r=6)
    assert type(model) is kind and list(model.state_dict()) == keys and not hasattr(model, "tome")
    check_bundle(bundle, model, 6)


def test_a_failed_export_leaves_the_object_as_it_was_and_no_folder(tmp_path):
    model = apply_patch(tiny_model("vit"))
    model.r = 4
    with quiet(), pytest.raises(RequestError):
        export(model, tmp_path / "out", r=5, preprocess="no such preset")
    with quiet(), pytest.raises(RequestError):
        export(model, tmp_path / "out", weights="x.pdparams")
    with quiet(), pytest.raises(ValueError):
        export(model, tmp_path / "out", r=-1)
    assert model.r == 4 and list(tmp_path.iterdir()) == []


# What the slow ones compute when they are patched is in tests/core/test_patch_foreign.py.
@pytest.mark.parametrize(
    "name",
    ["PasslMAE", "PasslDistilled", "NoClassToken"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("PasslViT", "TimmViT")],
)
def test_look_alikes_of_other_projects(name, tmp_path):
    model = getattr(foreign_models, name)()
    randomise(model, 1)
    model.eval()
    bundle = export_quietly(model, tmp_path / "out", r=6, prop_attn=True)
    assert bundle.manifest.model.name == type(model).__name__
    assert (bundle.manifest.model.image_size, bundle.manifest.model.patch_size) == (48, 8)
    check_bundle(bundle, model, 6)


@pytest.mark.parametrize("name", list(PADDLECLAS))
def test_the_real_paddleclas_classes(ppcls, name, tmp_path):
    module, options = PADDLECLAS[name]
    classes = importlib.import_module(f"{ppcls.__name__}.{module}")
    kind = getattr(classes, "VisionTransformer" if name == "ViT_small" else name)
    model = kind(**SHAPE, class_num=7, **options)
    randomise(model, 2)
    model.eval()
    bundle = export_quietly(model, tmp_path / "out", r=6)
    assert all(result.passed for result in bundle.manifest.parity)
    assert bundle.manifest.model.num_classes == 7
    check_bundle(bundle, model, 6)


def test_what_cannot_be_patched_is_refused(tmp_path):
    with quiet(), pytest.raises(PatchError, match="cannot patch Linear"):
        export(paddle.nn.Linear(2, 3), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
