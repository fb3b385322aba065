"""Scores against the model run by hand, on parts of real photographs."""

import numpy as np
import paddle
import pytest

from tests.export import small
from tome_export.preprocess import preset
from tome_export.tuning.measure import frame_of
from tome_export.tuning.pictures import Pictures
from tome_export.tuning.score import Scorer


@pytest.fixture(scope="module")
def model():
    return small.build("small_vit", 0)


@pytest.fixture(scope="module")
def pictures(details):
    images = preset("vit", small.SIZE).apply(details)
    noisy = [images + 0.3 * np.random.default_rng(i).normal(size=images.shape) for i in range(4)]
    images = np.concatenate([images, *noisy]).astype(np.float32)
    return Pictures(images, np.arange(len(images)) % small.CLASSES)


def logits(model, r, images):
    model.r = r
    with paddle.no_grad():
        return model(paddle.to_tensor(images)).numpy().astype(np.float64)


def softmax(values):
    values = np.exp(values - values.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


@pytest.mark.parametrize("r", [0, 4, 16])
def test_agreement_and_divergence(model, pictures, r):
    unlabelled = Pictures(pictures.images, None)
    found = Scorer(model, unlabelled, batch=10).score(frame_of(model).schedule(r))
    base, merged = logits(model, 0, pictures.images), logits(model, r, pictures.images)
    np.testing.assert_array_equal(found.right, base.argmax(1) == merged.argmax(1))
    p, q = softmax(base), softmax(merged)
    np.testing.assert_allclose(found.losses**2, (p * np.log(p / q)).sum(1), atol=1e-5)
    assert (found.share == 1) == (r == 0 or found.right.all())
    assert found.loss == pytest.approx(0, abs=1e-6) if r == 0 else found.loss > 0


def test_labels_make_it_accuracy(model, pictures):
    found = Scorer(model, pictures).score(frame_of(model).schedule(8))
    merged = logits(model, 8, pictures.images)
    np.testing.assert_array_equal(found.right, merged.argmax(1) == pictures.labels)
    picked = softmax(merged)[np.arange(len(pictures)), pictures.labels]
    np.testing.assert_allclose(found.losses, -np.log(picked), atol=1e-5)


def test_what_is_surely_worse_is_given_up_and_nothing_else(model, pictures):
    scorer = Scorer(model, Pictures(pictures.images, None), batch=16)
    little, much = (frame_of(model).schedule(r) for r in (2, 16))
    good = scorer.score(little)
    whole = Scorer(model, Pictures(pictures.images, None)).score(much)
    assert whole.loss > 2 * good.loss and scorer.score(much, against=good) is None
    assert scorer.score(little, against=whole) is good  # known already
    assert Scorer(model, Pictures(pictures.images, None), batch=16).score(little, against=whole) is not None


def test_answers_that_are_not_numbers_are_wrong_and_lose(model, pictures):
    images = pictures.images[:20].copy()
    images[3] = np.nan
    found = Scorer(model, Pictures(images, None)).score(frame_of(model).schedule(4))
    assert not found.right[3] and found.losses[3] > 100 and np.isfinite(found.losses).all()
