"""What a model does around its blocks, measured by running it with probes in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn

from tome_core.errors import PatchError
from tome_core.examine import (
    different,
    line_of,
    random_copy,
    random_like,
    random_state,
    set_random_state,
    side_effects_undone,
)


@dataclass(frozen=True)
class Layout:
    """What surrounds the blocks of a model.

    tokens: enter block 0. special: of these lead and do not depend on the image (class, distillation token).
    channels: of a token. readout: what the model reads after its last block:
    "special" tokens only, the "sum" or the "mean" of the patch tokens as well, or all "tokens".
    """

    tokens: int
    special: int
    channels: int
    readout: str


def measure_layout(model: nn.Layer, blocks: Sequence[nn.Layer], image_shape: tuple[int, int, int]) -> Layout:
    """Run `model` on two random images of this shape with probes in place of its blocks.

    Raises PatchError if it calls them otherwise than once each, in order, on tokens alone; touches the tokens
    in between; or has more than two special tokens or has them elsewhere than in front.
    """
    with side_effects_undone():
        probes = [_Probe(index) for index in range(len(blocks))]
        stand_ins = {id(block): probe for block, probe in zip(blocks, probes, strict=True)}
        outside = random_copy(model, stand_ins)
        run = _Run(outside, probes, image_shape)
        base = run()
        (_, tokens, channels), special = run.entering.shape, run.special
        if different(run(between=True), base):
            raise PatchError("it reads patch tokens between its blocks")
        readout = "special" if not different(run(last=True), base) else _pooling(run, tokens - special)
    return Layout(tokens, special, channels, readout)


def _pooling(run: _Run, patches: int) -> str:
    """How the model reads patch tokens: does it mind fewer of them with the same sum, or the same mean?

    A norm hides the factor between the two unless what it gets is as small as its epsilon, so ask there too.
    """
    scales = (1.0, 1e-3 * patches**0.5)
    for pooling in ("sum", "mean"):
        changed = (
            different(run(pooled=(pooling, max(1, patches // 2)), scale=scale), run(scale=scale))
            for scale in scales
        )
        if not any(changed):
            return pooling
    return "tokens"


class _Probe(nn.Layer):
    """Takes a block's place in the copy of a model."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.answer: Callable = None

    def forward(self, x, *args, **kwargs):
        more = [name for name, value in kwargs.items() if value is not None]
        more += ["a second argument"] * any(value is not None for value in args)
        if more:
            raise PatchError(f"it calls its blocks with {more[0]} beside the tokens")
        return self.answer(self.index, x)


class _Run:
    """Runs the copy with prepared tokens coming out of its probes."""

    def __init__(self, model: nn.Layer, probes: list[_Probe], image_shape: tuple[int, int, int]) -> None:
        self.model, self.probes = model, probes
        parameter = next(iter(model.parameters()), None)
        if parameter is None:
            raise PatchError("it has no parameters outside its blocks")
        self.images = random_like(parameter, [2, *image_shape], seed=0)
        self.random_state = random_state()
        self.entering = None

    def __call__(
        self,
        between: bool = False,
        last: bool = False,
        pooled: tuple[str, int] | None = None,
        scale: float = 1.0,
    ):
        """Output with other patch tokens leaving all blocks but the last (`between`) or the last (`last`),
        or there fewer of the same sum or mean; what leaves the last block is multiplied by `scale`."""
        self.variant = (between, last, pooled, scale)
        self.given: list[paddle.Tensor] = []
        for probe in self.probes:
            probe.answer = self._answer
        set_random_state(self.random_state)
        try:
            out = self.model(self.images)
        except PatchError:
            raise
        except Exception as error:
            shape = list(self.images.shape)
            raise PatchError(f"it does not run on images of shape {shape} alone: {line_of(error)}") from error
        if len(self.given) != len(self.probes):
            raise PatchError(f"it calls {len(self.given)} of its {len(self.probes)} blocks")
        return out

    def _answer(self, index: int, x):
        if index != len(self.given):
            raise PatchError("it does not call its blocks once each and in order")
        if index == 0:
            if len(x.shape) != 3 or x.shape[0] != 2:
                raise PatchError(f"its blocks take {list(x.shape)}, not [batch, tokens, channels]")
            if self.entering is None:
                self.entering, self.special = x, _leading_special(x)
                self.random, self.other = (random_like(x, x.shape, seed) for seed in (1, 2))
        elif x is not self.given[-1] and different(x, self.given[-1]):
            raise PatchError(f"it changes the tokens between block {index - 1} and block {index}")
        between, last, pooled, scale = self.variant
        final = index == len(self.probes) - 1
        tokens = self._tokens(index, last if final else between)
        if final:
            tokens = scale * (self._pooled(tokens, *pooled) if pooled else tokens)
        self.given.append(tokens)
        return tokens

    def _tokens(self, index: int, other_patches: bool):
        """As many tokens as enter the first block, others for every block; patches may vary."""
        tokens = self.random.roll(1 + index, axis=-1)
        patches = (self.other if other_patches else self.random).roll(1 + index, axis=-1)[:, self.special :]
        return paddle.concat([tokens[:, : self.special], patches], axis=1) if self.special else patches

    def _pooled(self, tokens, pooling: str, fewer: int):
        """`fewer` patch tokens in place of all, with the same sum or the same mean."""
        kept, patches = tokens[:, : self.special], tokens[:, self.special :]
        others = self.other[:, :fewer]
        share = 1.0 if pooling == "mean" else patches.shape[1] / fewer
        others = others + (patches.mean(1, keepdim=True) * share - others.mean(1, keepdim=True))
        return paddle.concat([kept, others], axis=1) if self.special else others


def _leading_special(tokens) -> int:
    first, second = tokens.astype("float32").numpy()
    same = (first == second).all(-1)
    special = int(np.argmin(same)) if not same.all() else len(same)
    if special == len(same):
        raise PatchError("the tokens entering its blocks do not depend on the image")
    if same[special:].any():
        raise PatchError("it has tokens that are no patches elsewhere than in front of the patches")
    if special > 2:
        raise PatchError(
            f"it has {special} tokens beside the patches; a class and a distillation token will do"
        )
    return special
