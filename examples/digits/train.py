"""Train the digits model, with or without Token Merging, and load what was trained."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from examples.digits import data
from tome_core import apply_patch
from tome_core.checkpoints import read_checkpoint
from tome_core.checkpoints.loading import load_weights
from tome_core.schedule import RSpec
from tome_core.zoo.config import ViTConfig
from tome_core.zoo.vit import VisionTransformer

CONFIG = ViTConfig(
    "digits_vit",
    "vit",
    patch_size=4,  # 64 patches and the class token
    embed_dim=64,
    depth=6,
    num_heads=4,
    mlp_ratio=2.0,
    image_size=data.IMAGE_SIZE,
    num_classes=len(data.CLASSES),
)
EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY, SMOOTHING = 40, 64, 2e-3, 0.05, 0.1
_WARM_UP = 0.1  # of all steps
_TURN, _ZOOM, _SHIFT = math.radians(10), 0.1, 0.08  # of the augmentation, at most; shift in image widths


def train(
    folder: str | Path,
    r: RSpec = 0,
    seed: int = 0,
    epochs: int = EPOCHS,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train on the digits that are not held out; returns the checkpoint, a .pdparams file in `folder`.

    A checkpoint of the same r, seed, epochs and recipe that is there already is returned as it is. The same
    seed gives the same weights on one machine with one number of threads. report: called with a line per
    epoch.
    """
    path = Path(folder) / f"digits-r{_name(r)}-seed{seed}-epochs{epochs}-{_recipe()}.pdparams"
    if path.exists():
        return path
    model = _fit(r, seed, epochs, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    paddle.save(model.state_dict(), str(partial))
    partial.replace(path)
    return path


def load(checkpoint: str | Path, r: RSpec = 0) -> nn.Layer:
    """The trained model, patched, in eval mode. Raises CheckpointError."""
    model = VisionTransformer(CONFIG)
    load_weights(model, read_checkpoint(checkpoint).tensors)
    model.eval()
    apply_patch(model).r = r
    return model


def new_model(r: RSpec, seed: int) -> nn.Layer:
    """A fresh model, patched, in training mode."""
    paddle.seed(seed)
    model = apply_patch(VisionTransformer(CONFIG))
    model.r = r
    model.train()
    return model


def new_optimizer(model: nn.Layer, rate) -> paddle.optimizer.AdamW:
    """AdamW that leaves biases, norms, tokens and positions out of the weight decay."""
    decayed = {each.name for each in model.parameters() if each.ndim in (2, 4)}
    return paddle.optimizer.AdamW(
        rate,
        parameters=model.parameters(),
        weight_decay=WEIGHT_DECAY,
        apply_decay_param_fun=lambda name: name in decayed,
        grad_clip=nn.ClipGradByGlobalNorm(1.0),
    )


def step(model: nn.Layer, optimizer, images, labels) -> float:
    """One training step; returns the loss."""
    loss = F.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    return loss.item()


@contextmanager
def contiguous() -> Iterator[None]:
    """Without strided views, on which Paddle's backward pass is about twice as slow on a CPU."""
    flag = "FLAGS_use_stride_kernel"
    before = paddle.get_flags(flag)
    paddle.set_flags({flag: False})
    try:
        yield
    finally:
        paddle.set_flags(before)


def augment(images, rng: np.random.Generator):
    """Turn, zoom and shift each image a little; float32 [n, 3, H, W] in and out. Digits are not mirrored."""
    count = len(images)
    turn = rng.uniform(-_TURN, _TURN, count)
    zoom = rng.uniform(1 - _ZOOM, 1 + _ZOOM, count)
    across, down = rng.uniform(-2 * _SHIFT, 2 * _SHIFT, (2, count))  # the grid is two units wide
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    matrix = np.stack([cos, -sin, across, sin, cos, down], axis=-1).reshape(count, 2, 3)
    grid = F.affine_grid(paddle.to_tensor(matrix.astype(np.float32)), images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _fit(r: RSpec, seed: int, epochs: int, report: Callable[[str], None]) -> nn.Layer:
    digits, _ = data.load_digits()
    images, labels = paddle.to_tensor(digits.images), paddle.to_tensor(digits.labels)
    rng = np.random.default_rng(seed)
    model = new_model(r, seed)
    steps = epochs * (len(labels) // BATCH)
    rates = [_rate((number + 1) / steps) for number in range(steps)]
    schedule = paddle.optimizer.lr.LambdaDecay(PEAK_RATE, lambda number: rates[min(number, steps - 1)])
    optimizer = new_optimizer(model, schedule)
    start = time.perf_counter()
    with contiguous():
        for epoch in range(epochs):
            order = rng.permutation(len(labels))
            losses = []
            for first in range(0, len(order) - BATCH + 1, BATCH):
                chosen = paddle.to_tensor(order[first : first + BATCH])
                batch = augment(images.index_select(chosen), rng)
                losses.append(step(model, optimizer, batch, labels.index_select(chosen)))
                schedule.step()
            seconds = time.perf_counter() - start
            left = seconds / (epoch + 1) * (epochs - epoch - 1)
            report(f"  epoch {epoch + 1:>3}/{epochs}   loss {np.mean(losses):.4f}   {left:4.0f} s left")
    return model


def _rate(done: float) -> float:
    """Learning rate, as a part of its peak, after a part of the training: a line up, half a cosine down."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def _name(r: RSpec) -> str:
    return "-".join(map(str, r)) if isinstance(r, list | tuple) else str(r)


def _recipe() -> str:
    """Changes with the text of this file and of the data's: no stale checkpoint is taken for a new one."""
    text = b"".join(Path(file).read_bytes() for file in (__file__, data.__file__))
    return hashlib.sha256(text).hexdigest()[:8]
