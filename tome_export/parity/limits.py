"""What each precision may differ by. One table; a new precision is a new row.

Rounding one number has a relative error of at most the unit roundoff u: 2^-24 in fp32, 2^-11 in fp16, 2^-9 in
bf16, and 1/254 of a channel's largest value in int8. Everything else follows from u:

    stage        64 u.  A part of a block is a few products in a row, each a sum of some hundred terms. Errors
                 in such a sum partly cancel and grow with the square root of its length, about 25 u at width 768;
                 the largest of 100,000 elements lies at 4 to 5 standard deviations.
    gain         A LayerNorm may be off by u in each element, but not in all by the same factor: the mean of that
                 error over thousands of elements must vanish. u / 2 leaves room for a biased last step; an
                 epsilon of 1e-5 for 1e-6 already shows where tokens have a variance of 100 or less.
    similarity   The stage's, carried through the blocks before, where errors of independent stages add up like
                 their squares: stage * sqrt(blocks), 1/4 of it because similarities average over the keys.
    logits       stage * sqrt(stages), with four stages a block: attention, merging, MLP, and a norm.
    near_ties    Similarities lie about 1 / decisions apart, so at fp32's noise few decisions can hang on it;
                 with less precision more do, and that is counted, not hidden.

A wrong operator shows at 1e-2 and more, whatever the precision, because a stage is judged by itself and its error
is not diluted by what follows. The table is stored in the manifest beside the figures.
"""

from __future__ import annotations

from math import sqrt

from tome_export.errors import RequestError
from tome_export.parity.result import Limits

UNIT_ROUNDOFF = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-9, "int8": 1 / 254}
NEAR_TIES = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.25, "int8": 0.35}


def limits(precision: str, depth: int) -> Limits:
    """What an artifact of this precision and number of blocks may differ by. Raises RequestError."""
    if precision not in UNIT_ROUNDOFF:
        raise RequestError(f"no parity limits for precision {precision!r}; known: {', '.join(UNIT_ROUNDOFF)}")
    u = UNIT_ROUNDOFF[precision]
    stage = 64 * u
    return Limits(
        stage=stage,
        gain=4 * u,
        similarity=stage * sqrt(depth) / 4,
        logits=stage * sqrt(4 * depth),
        near_ties=NEAR_TIES[precision],
    )
