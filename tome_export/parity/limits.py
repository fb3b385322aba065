"""What each precision may differ by. One table; a new precision is a new row.

Rounding one number has a relative error of at most the unit roundoff u: 2^-24 in fp32, 2^-11 in fp16, 2^-9
in bf16, and 1/254 of a channel's largest value in int8. Everything else follows from u:

    stage        64 u in fp32, 16 u below, of the largest value. A part of a block is a few products in a
                 row, each a sum of some hundred terms, whose errors partly cancel: in fp32 they grow with the
                 square root of the length, to about 25 u at width 768, and the largest of 100,000 lies 4 to 5
                 deviations out. Less precise formats are summed in fp32 or exactly, so that only the factors
                 are rounded. Measured: up to 14 u in fp32, up to 4 u in int8
                 and bf16, 1 u in fp16 on the CPU, which rounds less often than a GPU.
    gain         4 u. A LayerNorm rounds the factor of each token, so a token may be off as a whole by u or
                 2 u, but the mean over tokens and channels hardly. An epsilon of 1e-5 for 1e-6 scales a
                 token of variance v by 1 - 4.5e-6 / v: it shows below v = 19 in fp32.
    similarity   stage * sqrt(blocks) / 2. Errors of the blocks before add up like their squares; similarities
                 average over a head's channels. Measured: up to 18 u in fp32, 4 u in int8,
                 6 u in bf16, 2 u in fp16.
    logits       stage * sqrt(blocks), of the range. Measured with the same merges: up to 20 u in fp32, up to
                 4 u in int8.
    near_ties    the share of decisions on photographs and noise. The r-th and the next of some hundred
                 similarities lie about 1e-3 apart, so that at fp32's noise one decision in thousands hangs on
                 it; with less precision more do.

A wrong operator shows at 1e-2 and more, whatever the precision, because a stage is judged by itself: its
error is not diluted by what follows. The limits are stored in the manifest beside the figures.
"""

from __future__ import annotations

from math import sqrt

from tome_export.errors import RequestError
from tome_export.parity.result import Limits

UNIT_ROUNDOFF = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-9, "int8": 1 / 254}
_STAGE = {"fp32": 64}  # others: 16
NEAR_TIES = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.25, "int8": 0.35}


def limits(precision: str, depth: int) -> Limits:
    """What an artifact of this precision and number of blocks may differ by. Raises RequestError."""
    if precision not in UNIT_ROUNDOFF:
        raise RequestError(f"no parity limits for precision {precision!r}; known: {', '.join(UNIT_ROUNDOFF)}")
    u = UNIT_ROUNDOFF[precision]
    stage = _STAGE.get(precision, 16) * u
    return Limits(
        stage=stage,
        gain=4 * u,
        similarity=stage * sqrt(depth) / 2,
        logits=stage * sqrt(depth),
        near_ties=NEAR_TIES[precision],
    )
