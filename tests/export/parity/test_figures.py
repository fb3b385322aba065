"""How far logits are apart, by hand."""

import numpy as np
import pytest

from tome_export.parity.figures import compare
from tome_export.parity.limits import UNIT_ROUNDOFF, limits


def test_by_hand():
    wanted = np.array([[0.0, 2.0, -2.0], [1.0, 0.5, 0.0]], np.float32)
    found = wanted.copy()
    found[1, 2] += 0.75
    result = compare(found, wanted)
    assert result.max_abs == 0.75 and result.max_rel == 0.75 / 4  # their range is 4
    assert result.mean_abs == 0.75 / 6
    assert result.psnr == pytest.approx(20 * np.log10(4 / (0.75 / 6**0.5)))
    assert result.cosine_min == pytest.approx(1.25 / (1.25**0.5 * (1.25 + 0.5625) ** 0.5))
    assert (result.top1_agreement, result.top5_agreement) == (1, 1)


def test_the_best_classes():
    wanted = np.array([[9, 8, 7, 6, 5, 4, 3], [9, 8, 7, 6, 5, 4, 3]], np.float32)
    found = wanted.copy()
    found[0] = [8, 9, 7, 6, 5, 4, 3]  # another first, the same five
    found[1] = [9, 8, 7, 3, 4, 5, 6]  # three of the five
    result = compare(found, wanted)
    assert result.top1_agreement == 0.5 and result.top5_agreement == pytest.approx((1 + 3 / 5) / 2)


def test_no_difference_has_no_psnr():
    wanted = np.array([[1.0, 0.0]], np.float32)
    result = compare(wanted, wanted)
    assert result.psnr is None and result.max_rel == 0 and result.cosine_min == pytest.approx(1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_as_wrong_as_can_be(bad):
    wanted = np.array([[1.0, 0.0, -1.0]], np.float32)
    found = wanted.copy()
    found[0, 1] = bad
    # Nor is a model that is NaN itself proved by a runtime that agrees.
    for pair in ((found, wanted), (wanted, found), (found, found)):
        result = compare(*pair)
        assert np.isfinite(result.max_rel) and result.max_rel > 1e30 and result.top1_agreement == 0


def test_limits_follow_the_precision_and_the_depth():
    assert limits("fp32", 12).stage == 64 * 2.0**-24
    for name, u in UNIT_ROUNDOFF.items():
        found = limits(name, 9)
        assert found.stage / u == pytest.approx(64 if name == "fp32" else 16)
        assert found.logits / found.stage == pytest.approx(3)
        assert limits(name, 36).logits == pytest.approx(2 * found.logits)
        assert limits(name, 36).stage == found.stage
    order = [limits(name, 12).logits for name in ("fp32", "fp16", "bf16", "int8")]
    assert order == sorted(order)
