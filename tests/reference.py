"""Token Merging a second time, slowly: what the product's tests compare against.

Written from the text of "Token Merging: Your ViT But Faster" (Bolya et al., ICLR 2023, arXiv 2210.09461)
in plain numpy and explicit loops, and sharing no line with the product. Nothing here is meant to be fast;
everything is meant to be checked by reading it next to the paper.

Arrays keep the dtype they come in. Shapes: B batch, N tokens, C channels, K number of output tokens.
"""

import math
from dataclasses import dataclass

import numpy as np

# ---------------------------------------------------------------- schedules


def expand_r(r, depth):
    """One r per block, not yet clamped, from an int, a list padded with zeros, or a pair (r, inflection)."""
    if isinstance(r, int):
        return [r] * depth
    if isinstance(r, tuple):
        average, inflection = r
        if depth == 1:
            return [average]  # a line over one block has no slope; its average is all that is left
        first = int(average * (1 - inflection))
        last = 2 * average - first
        step = (last - first) / (depth - 1)
        return [int(first + step * block) for block in range(depth)]
    return list(r) + [0] * (depth - len(r))


def token_counts(r_per_block, tokens, protected):
    """(r really merged in each block, tokens entering block 0 and leaving each block)."""
    effective, counts = [], [tokens]
    for r in r_per_block:
        r = max(0, min(r, (tokens - protected) // 2))
        tokens -= r
        effective.append(r)
        counts.append(tokens)
    return effective, counts


def block_macs(tokens_in, tokens_out, dim, hidden):
    """Multiply-adds of one block: attention sees the tokens entering, the MLP those left after merging."""
    qkv = tokens_in * dim * 3 * dim
    attention = 2 * tokens_in * tokens_in * dim  # query times key, then weights times value
    projection = tokens_in * dim * dim
    mlp = 2 * tokens_out * dim * hidden
    return qkv + attention + projection + mlp


def model_macs(counts, dim, hidden, patches, patch_size, head_macs):
    """Multiply-adds of a whole model on one image: patch embedding, blocks, head(s)."""
    total = patches * (3 * patch_size * patch_size) * dim + head_macs
    for tokens_in, tokens_out in zip(counts[:-1], counts[1:], strict=True):
        total += block_macs(tokens_in, tokens_out, dim, hidden)
    return total


# ---------------------------------------------------------------- matching


@dataclass(frozen=True)
class Matching:
    """`group[b, i]` is the output position of input token i. `outputs` is how many positions there are.

    `margin` is the smallest difference in similarity that any decision rests on: below rounding error,
    another correct implementation may decide differently.
    """

    group: np.ndarray
    outputs: int
    margin: float = math.inf


def identity_matching(batch, tokens):
    return Matching(np.tile(np.arange(tokens, dtype=np.int64), (batch, 1)), tokens)


def _similarity(metric):
    """Cosine similarity of every token with every other, [N, N], for one sample [N, C]."""
    unit = np.zeros_like(metric)
    for i, row in enumerate(metric):
        length = np.sqrt((row * row).sum())
        unit[i] = row / length if length > 0 else row
    return unit @ unit.T


def _most_similar(similarity, source, destinations):
    """(most similar destination, the lowest index on a tie; its similarity; its lead over the next)."""
    best = destinations[0]
    for candidate in destinations[1:]:
        if similarity[source, candidate] > similarity[source, best]:
            best = candidate
    others = [similarity[source, d] for d in destinations if d != best]
    lead = similarity[source, best] - max(others) if others else math.inf
    return best, similarity[source, best], lead


def _group(outputs_in_order, target_of_source):
    """Output positions of all tokens, given who stays (in output order) and who merges into whom."""
    position = {token: place for place, token in enumerate(outputs_in_order)}
    for source, target in target_of_source.items():
        position[source] = position[target]
    return [position[token] for token in range(len(position))]


def bipartite_soft_matching(metric, r, class_token=False, distill_token=False):
    """Section 3 of the paper: even tokens are set A, odd tokens set B, the r best edges from A to B merge."""
    batch, tokens, _ = metric.shape
    r = min(r, (tokens - int(class_token) - int(distill_token)) // 2)
    if r <= 0:
        return identity_matching(batch, tokens)

    a_tokens, b_tokens = list(range(0, tokens, 2)), list(range(1, tokens, 2))
    givers = a_tokens[1:] if class_token else a_tokens  # the class token never merges away
    receivers = b_tokens[1:] if distill_token else b_tokens  # the distillation token never receives
    if not receivers:  # three tokens, a distillation token and no class token: nobody may receive
        return identity_matching(batch, tokens)
    groups, margin = [], math.inf
    for sample in metric:
        similarity = _similarity(sample)
        target, score, lead = {}, {}, {}
        for a in givers:
            target[a], score[a], lead[a] = _most_similar(similarity, a, receivers)
        ranking = sorted(givers, key=lambda a: -score[a])  # stable: on a tie the lower index ranks first
        merged, kept = ranking[:r], ranking[r:]

        margin = min([margin] + [lead[a] for a in merged])
        # With a class token only the cut between merged and kept matters, else the order of the kept too.
        last_rank = r + 1 if class_token else len(ranking)
        for rank in range(r, min(last_rank, len(ranking))):
            margin = min(margin, score[ranking[rank - 1]] - score[ranking[rank]])

        if class_token:
            kept = [0] + sorted(kept)
        if distill_token:
            order = [kept[0], b_tokens[0]] + kept[1:] + b_tokens[1:]
        else:
            order = kept + b_tokens
        groups.append(_group(order, {a: target[a] for a in merged}))
    return Matching(np.array(groups, dtype=np.int64), tokens - r, float(margin))


def _merge_all_into(metric, destinations_of_sample):
    """All but the destinations merge into their most similar destination; destinations keep their order."""
    groups, margin = [], math.inf
    for sample, destinations in zip(metric, destinations_of_sample, strict=True):
        similarity = _similarity(sample)
        target = {}
        for token in range(len(sample)):
            if token not in destinations:
                target[token], _, lead = _most_similar(similarity, token, destinations)
                margin = min(margin, lead)
        groups.append(_group(destinations, target))
    return Matching(np.array(groups, dtype=np.int64), len(destinations_of_sample[0]), float(margin))


def kth_bipartite_soft_matching(metric, k):
    """Tokens k-1, 2k-1, ... are destinations, all others (a trailing N % k included) merge."""
    batch, tokens, _ = metric.shape
    if k <= 1:
        return identity_matching(batch, tokens)
    return _merge_all_into(metric, [list(range(k - 1, tokens, k))] * batch)


def random_bipartite_soft_matching(metric, sources):
    """`sources[b]` merge, all other tokens of sample b are destinations in index order."""
    _, tokens, _ = metric.shape
    return _merge_all_into(metric, [[i for i in range(tokens) if i not in set(chosen)] for chosen in sources])


# ---------------------------------------------------------------- merging


def merge_sum(matching, x):
    """[B, N, C] -> [B, K, C]: the sum of each group."""
    batch, tokens, channels = x.shape
    out = np.zeros((batch, matching.outputs, channels), dtype=x.dtype)
    for b in range(batch):
        for i in range(tokens):
            out[b, matching.group[b, i]] += x[b, i]
    return out


def merge_mean(matching, x):
    """[B, N, C] -> [B, K, C]: the plain average of each group."""
    return merge_sum(matching, x) / merge_sum(matching, np.ones_like(x[:, :, :1]))


def merge_wavg(matching, x, size=None):
    """([B, K, C], [B, K, 1]): the average of each group weighted by size, and the size of each group."""
    size = np.ones_like(x[:, :, :1]) if size is None else size
    new_size = merge_sum(matching, size)
    return merge_sum(matching, x * size) / new_size, new_size


def merge_source(matching, sources=None):
    """[B, N0]: the position, after this merge, of every token the model started with."""
    sources = identity_matching(*matching.group.shape).group if sources is None else sources
    out = np.zeros_like(sources)
    for b in range(sources.shape[0]):
        for i in range(sources.shape[1]):
            out[b, i] = matching.group[b, sources[b, i]]
    return out


def unmerge(matching, y):
    """[B, K, C] -> [B, N, C]: every input token gets the value of its group."""
    batch, tokens = matching.group.shape
    out = np.zeros((batch, tokens, y.shape[2]), dtype=y.dtype)
    for b in range(batch):
        for i in range(tokens):
            out[b, i] = y[b, matching.group[b, i]]
    return out


# ---------------------------------------------------------------- a Vision Transformer with Token Merging


@dataclass(frozen=True)
class Forward:
    """Result of a forward pass: logits [B, classes], source [B, N0], size [B, K, 1], a Matching per block.

    `heads`: the logits of each head, [B, classes]; two of a distilled model, whose mean `logits` is.
    """

    logits: np.ndarray
    source: np.ndarray
    size: np.ndarray
    matchings: tuple
    heads: tuple = ()

    @property
    def margin(self):
        return min(m.margin for m in self.matchings)


def _linear(weights, name, x):
    """Weights are [in, out]."""
    y = x @ weights[f"{name}.weight"]
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def _layer_norm(weights, name, x, eps):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gelu(x):
    return (0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))).astype(x.dtype)


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _attention(weights, name, x, num_heads, size):
    """(output [B, N, C], metric [B, N, d]); `size` [B, N, 1] adds its log to every key's scores (eq. 1)."""
    batch, tokens, channels = x.shape
    d = channels // num_heads
    qkv = _linear(weights, f"{name}.qkv", x)
    out, metric = np.zeros_like(x), np.zeros((batch, tokens, d), dtype=x.dtype)
    for b in range(batch):
        for h in range(num_heads):
            q, k, v = (qkv[b, :, part * channels + h * d :][:, :d] for part in range(3))
            scores = q @ k.T * d**-0.5
            if size is not None:
                scores = scores + np.log(size[b, :, 0])[None, :]
            out[b, :, h * d : (h + 1) * d] = _softmax(scores) @ v
            metric[b] += k / num_heads
    return _linear(weights, f"{name}.proj", out), metric


def _patch_embed(weights, image):
    """A convolution whose stride is its kernel: every patch, rows first, times the kernel as a matrix."""
    kernel = weights["patch_embed.proj.weight"]  # [C, 3, P, P]
    channels, p = kernel.shape[0], kernel.shape[2]
    rows, columns = image.shape[2] // p, image.shape[3] // p
    out = np.zeros((image.shape[0], rows * columns, channels), dtype=image.dtype)
    for b in range(image.shape[0]):
        for i in range(rows):
            for j in range(columns):
                patch = image[b, :, i * p : (i + 1) * p, j * p : (j + 1) * p]
                out[b, i * columns + j] = kernel.reshape(channels, -1) @ patch.reshape(-1)
    return out + weights["patch_embed.proj.bias"]


def cross_entropy(logits, labels):
    """The mean over the batch of minus the log of the right class's softmax; logits [B, classes]."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[label]
    return total / len(labels)


def vit_forward(weights, image, num_heads, r_per_block, prop_attn=True, eps=1e-6, matchings=None):
    """ViT / DeiT / distilled DeiT / MAE classifier with Token Merging.

    `weights` has timm's key names, and its keys tell the family: `dist_token` means distilled DeiT,
    `fc_norm` means average pooling over patches (MAE), `head0` means a tanh layer before the head.
    `matchings`: one per block, to merge by instead of deciding; the result is then smooth in all inputs.
    """
    fixed = matchings
    distilled, pooled = "dist_token" in weights, "fc_norm.weight" in weights
    x = _patch_embed(weights, image)
    batch, patches, _ = x.shape
    special = [weights["cls_token"]] + ([weights["dist_token"]] if distilled else [])
    x = np.concatenate([np.repeat(token, batch, axis=0) for token in special] + [x], axis=1)
    x = x + weights["pos_embed"]

    source = identity_matching(batch, x.shape[1]).group
    size = np.ones_like(x[:, :, :1])
    matchings = []
    for block, r in enumerate(r_per_block):
        name = f"blocks.{block}"
        normed = _layer_norm(weights, f"{name}.norm1", x, eps)
        y, metric = _attention(weights, f"{name}.attn", normed, num_heads, size if prop_attn else None)
        x = x + y
        if fixed is None:
            matching = bipartite_soft_matching(metric, r, class_token=True, distill_token=distilled)
        else:
            matching = fixed[block]
        x, size = merge_wavg(matching, x, size)
        source = merge_source(matching, source)
        matchings.append(matching)
        normed = _layer_norm(weights, f"{name}.norm2", x, eps)
        x = x + _linear(weights, f"{name}.mlp.fc2", _gelu(_linear(weights, f"{name}.mlp.fc1", normed)))

    if pooled:
        x = (x * size)[:, 1:].sum(axis=1) / patches
        heads = [_linear(weights, "head", _layer_norm(weights, "fc_norm", x, eps))]
    else:
        x = _layer_norm(weights, "norm", x, eps)
        features = x[:, 0]
        if "head0.weight" in weights:
            features = np.tanh(_linear(weights, "head0", features))
        heads = [_linear(weights, "head", features)]
        if distilled:
            heads.append(_linear(weights, "head_dist", x[:, 1]))
    return Forward(sum(heads) / len(heads), source, size, tuple(matchings), tuple(heads))
