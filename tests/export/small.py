"""A small model of each family, five blocks deep, exported by the real pipeline at four schedules.

The command line takes model names only, so the small shapes are registered under names of their own: in child
processes (`python -m tests.export.small`), or while one export of a test runs.
"""

import gc
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from tome_core.zoo import config as zoo
from tome_core.zoo.config import ViTConfig
from tome_export.bundle import Bundle
from tome_export.manifest import Manifest
from tome_export.pipeline import export
from tome_export.quiet import quiet
from tome_export.steps import Steps

ROOT = Path(__file__).resolve().parents[2]
SIZE, CLASSES, DEPTH, HEADS, SEED = 64, 11, 5, 3, 3


def _config(name: str, family: str, **rest) -> ViTConfig:
    shape = {"patch_size": 8, "embed_dim": 48, "depth": DEPTH, "num_heads": HEADS}
    return ViTConfig(name, family, image_size=SIZE, num_classes=CLASSES, **shape, **rest)


MODELS = {
    config.name: config
    for config in (
        _config("small_vit", "vit"),
        _config("small_deit", "deit"),
        _config("small_deit_distilled", "deit", distilled=True),
        _config("small_mae", "mae", global_pool=True),
    )
}
# 65 or 66 tokens: 16 a block is more than the last blocks have, so it is cut down there.
SCHEDULES = {"r0": 0, "r8": 8, "r16": 16, "r16-decreasing": (16, -1.0)}
CASES = [(model, schedule) for model in MODELS for schedule in SCHEDULES]


@contextmanager
def registered() -> Iterator[None]:
    """Within the block, the export knows the small models by name."""
    zoo._CONFIGS.update(MODELS)
    try:
        yield
    finally:
        for name in MODELS:
            del zoo._CONFIGS[name]


def export_small(model: str, out: Path, steps: Steps | None = None, force: bool = False, **asked) -> Bundle:
    """`export`, quietly, with the small models known. Random weights of SEED unless asked otherwise."""
    with registered(), quiet():
        return export(model, out, steps=steps, force=force, **{"seed": SEED, **asked})


def export_all(folder: Path) -> None:
    """Every case, with both outputs, to `folder`/MODEL-SCHEDULE. Half of them in each of two processes."""
    shards = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.export.small", str(folder), str(shard)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for shard in range(2)
    ]
    said = [shard.communicate(timeout=300)[0] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], "\n".join(said)[-3000:]


def build(model: str, r, prop_attn: bool | None = None, seed: int = SEED, **changes):
    """The patched Python model, in eval mode, whose answers count. Its sources are traced.

    model: a small one or any of the zoo. changes: of its configuration.
    """
    from tome_core.patch import apply_patch
    from tome_core.zoo.random_init import randomise
    from tome_core.zoo.vit import VisionTransformer

    config = replace(MODELS.get(model) or zoo.get_config(model), **changes)
    layer = VisionTransformer(config)
    randomise(layer, seed)
    layer.eval()
    apply_patch(layer, config.family != "mae" if prop_attn is None else prop_attn, trace_source=True)
    layer.r = r
    return layer


def answers(layer, images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The model's outputs by name, and for each image how far, in similarity, its merges are from others."""
    import paddle

    from tome_core.taps import tapped
    from tome_export.parity.decisions import Block, margin

    state = layer.tome
    with tapped(layer) as seen, paddle.no_grad():
        logits = layer(paddle.to_tensor(images)).numpy()
    margins = np.full(len(images), np.inf)
    for index, r in enumerate(state.schedule.r):
        if r > 0:
            block = Block(state.schedule.tokens[index], r, state.class_token, state.distill_token)
            scores = seen[f"block{index}.scores"].numpy()
            margins = np.minimum(margins, [margin(row, block) for row in scores])
    return {"logits": logits, "sources": layer.tome.source.numpy()}, margins


def details(photos) -> list:
    """Twenty-one real pictures from three photographs: each whole, and six parts of it."""
    parts = []
    for photo in photos:
        parts.append(photo)
        width, height = photo.width // 3, photo.height // 2
        for column in range(3):
            for row in range(2):
                box = (column * width, row * height, (column + 1) * width, (row + 1) * height)
                parts.append(photo.crop(box))
    return parts


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the range of `wanted`; NaN if anything found is NaN."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype == np.float32
    return float(np.abs(found - wanted).max() / np.ptp(wanted))


def merging_at_once(manifest: Manifest, most: int) -> Manifest:
    """As if the model had 577 tokens, of which the first block merges so many and the others none."""
    rest = manifest.model.depth - 1
    tome = replace(manifest.tome, r=(most, *[0] * rest), tokens=(577, 577 - most, *[577 - most] * rest))
    return replace(manifest, model=replace(manifest.model, image_size=192), tome=tome)


def main(folder: str, shard: str) -> None:
    for model, schedule in CASES[int(shard) :: 2]:
        out = Path(folder) / f"{model}-{schedule}"
        export_small(model, out, r=SCHEDULES[schedule], outputs=("logits", "sources"))
        gc.freeze()  # what is there by now is modules: see tests/conftest.py


if __name__ == "__main__":
    main(*sys.argv[1:])
