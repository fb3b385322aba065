"""Position embeddings for another image size, against Paddle's own bicubic interpolation."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from tome_core.checkpoints.resize import resize_position_embedding
from tome_core.errors import CheckpointError


def positions(grid, protected=1, channels=5, seed=0):
    return np.random.default_rng(seed).normal(size=(1, grid * grid + protected, channels)).astype("f4")


@pytest.mark.parametrize("protected", [0, 1, 2])
@pytest.mark.parametrize(("old", "new"), [(14, 24), (24, 14), (7, 12), (2, 9), (1, 3), (14, 15)])
def test_bicubic_as_paddle_does_it(old, new, protected):
    given = positions(old, protected)
    found = resize_position_embedding(given, protected, new * new)
    assert found.shape == (1, new * new + protected, 5) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :protected], given[:, :protected])
    grid = paddle.to_tensor(given[:, protected:].reshape(1, old, old, 5).transpose(0, 3, 1, 2).astype("f8"))
    expected = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False).numpy()
    expected = expected.transpose(0, 2, 3, 1).reshape(1, new * new, 5)
    np.testing.assert_allclose(found[:, protected:], expected, atol=1e-5)


def test_bicubic_as_torch_does_it():
    torch = pytest.importorskip("torch")
    given = positions(14)
    for new in (10, 24):
        grid = torch.from_numpy(given[:, 1:].reshape(1, 14, 14, 5).transpose(0, 3, 1, 2).astype("f8"))
        expected = torch.nn.functional.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
        expected = expected.numpy().transpose(0, 2, 3, 1).reshape(1, new * new, 5)
        np.testing.assert_allclose(resize_position_embedding(given, 1, new * new)[:, 1:], expected, atol=1e-6)


def test_rows_stay_rows_and_columns_columns():
    """Values that grow along rows only must still do so."""
    given = np.zeros((1, 17, 1), "f4")
    given[0, 1:, 0] = np.repeat(np.arange(4), 4)
    found = resize_position_embedding(given, 1, 64)[0, 1:, 0].reshape(8, 8)
    np.testing.assert_allclose(found, found[:, :1] * np.ones((1, 8)), atol=1e-6)
    assert (np.diff(found[:, 0]) > 0).all()


def test_the_same_size_changes_nothing():
    given = positions(14)
    np.testing.assert_array_equal(resize_position_embedding(given, 1, 196), given)


@pytest.mark.parametrize(("given", "patches"), [(positions(3), 10), (np.ones((1, 11, 4), "f4"), 9)])
def test_grids_that_are_not_square_are_refused(given, patches):
    with pytest.raises(CheckpointError, match="10 patch positions form no square"):
        resize_position_embedding(given, 1, patches)
