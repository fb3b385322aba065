"""Which token merges into which. Every operator here has a static shape; only the batch is dynamic.

A `Match` is data: one label per input token, and the label that each output position collects.
Two tokens with the same label become one. `tome_core.merging` applies it.

Labels are int64, and what is computed of them too, so that they stay exact where a runtime takes every float
of a graph to bfloat16 or float16; counts of merged tokens are not, but do not exceed r.

The functions run `exactly` as written, in full precision and without source transformation when tracing, and
without gradients: a choice has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F

from tome_core.ops import constant, exactly

# Cosine similarities lie in [-1, 1]; this much less can never win. Finite, so that half precision survives.
_NEVER = -4.0
# Keeps an all-zero key from becoming NaN; changes no other norm by a single bit.
_TINY = 1e-30


@dataclass(frozen=True)
class Match:
    """A partition of `tokens_in` tokens into `tokens_out` groups.

    label: int64 [batch, tokens_in], the group label of each input token.
    rows: the label collected by each output position, in output order; in ascending order the labels are
    evenly spaced.
    """

    label: paddle.Tensor
    rows: tuple[int, ...]

    @property
    def tokens_in(self) -> int:
        return self.label.shape[1]

    @property
    def tokens_out(self) -> int:
        return len(self.rows)

    @property
    def matrix(self) -> paddle.Tensor:
        """float32 [batch, tokens_out, tokens_in]: 1 where the output position collects the token."""
        # Not a comparison with `rows`, which Paddle broadcasts slowly. The ONNX graph gets one.
        ascending = sorted(self.rows)
        step = ascending[1] - ascending[0] if self.tokens_out > 1 else self.tokens_in
        if ascending != list(range(ascending[0], ascending[-1] + 1, step)):
            raise ValueError("the labels of a match are not evenly spaced")
        place = self.label - ascending[0] if ascending[0] else self.label
        place = place if step == 1 else place // step
        matrix = F.one_hot(place, self.tokens_out).transpose([0, 2, 1])
        if ascending == list(self.rows):
            return matrix
        order = [ascending.index(label) for label in self.rows]
        return matrix.gather(paddle.to_tensor(order), axis=1)

    @property
    def group(self) -> paddle.Tensor:
        """int64 [batch, tokens_in]: the output position of each input token."""
        return self.matrix.argmax(1)


@exactly
@paddle.no_grad()
def bipartite_soft_matching(
    metric: paddle.Tensor,
    r: int,
    class_token: bool = False,
    distill_token: bool = False,
    unit_length: bool = False,
) -> Match:
    """Match the r most similar pairs between alternating tokens (paper, section 3).

    metric: float [batch, tokens, channels]; similarity is the cosine between its rows.
    r: pairs to merge, limited to `(tokens - protected) // 2`.
    class_token: token 0 is never merged away. distill_token: token 1 never receives another token.
    unit_length: the rows of `metric` have length 1 already.

    Set A is the even tokens, B the odd ones. Each A token points to its most similar B token; the r best
    pairs merge. Output order: the unmerged A tokens, then all B tokens. The unmerged keep their order if
    there is a class token and else come in descending similarity. With a distillation token the order is
    class, distillation, unmerged, the rest of B. Ties go to the lower index.
    """
    r = mergeable(r, metric.shape[1], class_token, distill_token)
    if r == 0:
        return _identity(metric)
    return select(
        candidate_scores(metric, class_token, distill_token, unit_length), r, class_token, distill_token
    )


def mergeable(r: int, tokens: int, class_token: bool, distill_token: bool) -> int:
    """r limited to the tokens that may merge; 0 if no token may receive one."""
    destinations = tokens // 2 - distill_token
    return max(0, min(r, (tokens - class_token - distill_token) // 2)) if destinations > 0 else 0


@exactly
@paddle.no_grad()
def candidate_scores(
    metric: paddle.Tensor, class_token: bool = False, distill_token: bool = False, unit_length: bool = False
) -> paddle.Tensor:
    """Similarity of every source (row) with every destination (column), float32 [batch, tokens, tokens].

    Arguments as `bipartite_soft_matching`. Allowed pairs have their cosine, within [-1, 1]. A forbidden
    destination is 4 lower, so that it wins in no row; a forbidden source 8 lower, so that it is never ranked.
    """
    index = np.arange(metric.shape[1])
    no_destination = (index % 2 == 0) | (distill_token & (index == 1))
    no_source = (index % 2 == 1) | (class_token & (index == 0))
    similarity = metric.matmul(metric, transpose_y=True) if unit_length else _similarity(metric)
    # A sum of two vectors, so that the mask is not written into the graph; runtimes fold it when they load.
    mask = constant(_NEVER * no_destination, [1, 1, -1]) + constant(2 * _NEVER * no_source, [1, -1, 1])
    return similarity + mask


@exactly
@paddle.no_grad()
def select(scores: paddle.Tensor, r: int, class_token: bool = False, distill_token: bool = False) -> Match:
    """The match that `bipartite_soft_matching` makes of its scores; r as `mergeable` limits it, above 0."""
    tokens = scores.shape[1]
    index = np.arange(tokens)
    in_a = index % 2 == 0
    order = scores.max(-1).argsort(axis=-1, descending=True, stable=True)
    merged = F.one_hot(order[:, :r], tokens).sum(1)

    # A destination's label is its own (odd) index, which makes the argmax the label of a merged token.
    # Unmerged A tokens are labelled ..., -5, -3, -1 in output order. Whatever the scores, NaN among them, no
    # label is out of range: Paddle's one-hot would end the run of a whole batch for it.
    kept = int(in_a.sum()) - r
    if class_token:  # their order is that of their indices; those before them that merge do not count
        shift = merged.matmul(-2 * _earlier(in_a)).astype("int64")
        own = shift + _whole(np.where(in_a, index + 1 - 2 * kept, index))
    else:
        rank = order.argsort(axis=-1)
        own = rank * _whole(2 * in_a) + _whole(np.where(in_a, 1 - 2 * (kept + r), index))
    nearest = scores.argmax(-1) if kept else paddle.maximum(scores.argmax(-1), _whole([1]))
    label = paddle.where(merged.astype("bool"), nearest, own)

    unmerged, destinations = range(1 - 2 * kept, 0, 2), range(1, tokens, 2)
    if distill_token:
        return Match(label, (*unmerged[:1], *destinations[:1], *unmerged[1:], *destinations[1:]))
    return Match(label, (*unmerged, *destinations))


@exactly
@paddle.no_grad()
def kth_bipartite_soft_matching(metric: paddle.Tensor, k: int) -> Match:
    """Merge every token into the most similar of every k-th one (paper, appendix D).

    metric: float [batch, tokens, channels]. Destinations are tokens k-1, 2k-1, ...; all others merge, the
    incomplete group at the end included, so no token is lost. With `k <= 1`, or fewer than k tokens,
    nothing merges.
    """
    tokens = metric.shape[1]
    index = np.arange(tokens)
    destination = index % k == k - 1 if k > 1 else np.ones(tokens, bool)
    if destination.all() or not destination.any():
        return _identity(metric)
    scores = _similarity(metric) + constant(_NEVER * ~destination, [1, 1, -1])
    nearest, keep = paddle.maximum(scores.argmax(-1), _whole([k - 1])), _whole(destination)
    label = nearest + keep * (_whole(index) - nearest)
    return Match(label, tuple(index[destination].tolist()))


@exactly
@paddle.no_grad()
def random_bipartite_soft_matching(metric: paddle.Tensor, r: int, seed: int | None = None) -> Match:
    """Merge r randomly chosen tokens into the most similar of the others (paper, appendix D).

    metric: float [batch, tokens, channels]. The choice differs per image; `seed` repeats it, None draws from
    Paddle's global generator. The others keep their order. r is limited to `tokens - 1`.
    """
    tokens = metric.shape[1]
    r = min(r, tokens - 1)
    if r <= 0:
        return _identity(metric)
    draw = paddle.uniform(
        [paddle.shape(metric)[0], tokens], min=0.0, max=1.0, seed=0 if seed is None else seed + 1
    )
    merged = F.one_hot(draw.argsort(axis=-1)[:, :r], tokens).sum(1)
    scores = _similarity(metric) + _NEVER * merged.unsqueeze(1)
    # Destinations are labelled by their place among the destinations, which is their output position.
    place = (1 - merged.astype("int64")).cumsum(-1) - 1
    nearest = paddle.take_along_axis(place, scores.argmax(-1), axis=1, broadcast=False)
    return Match(paddle.where(merged > 0, nearest, place), tuple(range(tokens - r)))


def _similarity(metric: paddle.Tensor) -> paddle.Tensor:
    """Cosine similarity of every pair of tokens, float32 [batch, tokens, tokens]."""
    metric = metric.astype("float32") if metric.dtype in _HALF else metric
    squares = (metric * metric).sum(-1, keepdim=True)
    # Not sqrt or rsqrt: on some processors their vectorised form is off by a bit, and the one for the last
    # few elements is not: equal tokens would differ by where they stand. A power is the same everywhere.
    metric = metric * (squares + _TINY).pow(-0.5)
    return metric.matmul(metric, transpose_y=True)


_HALF = (paddle.float16, paddle.bfloat16)


def _earlier(counted: np.ndarray) -> paddle.Tensor:
    """float32 [tokens, tokens]: `x.matmul` of it sums the counted tokens before each of them; 0 for others.

    Not a cumulative sum, which TensorRT makes a loop of. Built from two vectors, so that the matrix is not
    written into the graph; runtimes fold it when they load.
    """
    index = np.arange(len(counted))
    by, of = np.where(counted, index, len(counted)), np.where(counted, index, -1)
    return (constant(by, [-1, 1]) < constant(of, [1, -1])).astype("float32")


def _whole(values) -> paddle.Tensor:
    """int64 [1, len(values)]."""
    return paddle.to_tensor(np.asarray(values, "int64").reshape(1, -1))


def _identity(metric: paddle.Tensor) -> Match:
    tokens = metric.shape[1]
    label = _whole(np.arange(tokens)).expand([paddle.shape(metric)[0], tokens])
    return Match(label, tuple(range(tokens)))
