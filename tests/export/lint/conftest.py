"""Real bundles of every family, at several schedules and opsets."""

import pytest

from tests.export import small
from tests.once import once
from tome_export.bundle import Bundle

CASES = [
    ("small_vit", 8, 17),
    ("small_vit", (16, -1.0), 19),
    ("small_deit", 8, 13),
    ("small_deit_distilled", 16, 20),
    ("small_mae", 8, 18),
]  # fmt: skip


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """One bundle for each of CASES, with both outputs."""

    def make(folder):
        for i, (model, r, opset) in enumerate(CASES):
            small.export_small(model, folder / str(i), r=r, opset=opset, outputs=("logits", "sources"))

    folder = once(tmp_path_factory, "lint", make)
    return [Bundle.open(folder / str(i)) for i in range(len(CASES))]
