"""What the report says in words: names, usual causes, why the limits are what they are, the glossary."""

from __future__ import annotations

from tome_export.parity.result import Finding, ParityResult

RUNTIMES = {
    "dygraph": "the Python model (dygraph)",
    "paddle": "Paddle Inference",
    "onnx": "ONNX Runtime",
}
"""As sentences have them; a runtime that is not here goes by its own name."""

ENGINES = {"dygraph": "paddle", "paddle": "paddle", "onnx": "onnxruntime"}
"""Runtime -> field of `tome_export.manifest.Versions`."""

TENSORS = {
    "norm1": "norm 1",
    "attended": "attention",
    "scores": "similarity",
    "size": "size",
    "merged": "merge",
    "norm2": "norm 2",
    "tokens": "MLP",
}
"""Keys of `BlockResult.errors` in the order of the graph -> the part that makes the tensor."""

_CAUSES = {
    "preprocess": (
        "The picture is normalised or resized otherwise than the weights were trained with. Nothing fails, "
        "but accuracy suffers."
    ),
    "outputs": (
        "The graph's outputs are not what the manifest says, or the shipped graph is not the one that was "
        "looked into."
    ),
    "embed": "The patch projection, the position embedding, or the order of the special tokens.",
    "norm": "Another epsilon, or weights that were lost or mixed up.",
    "attention": (
        "The scale or the axis of the softmax, a transposed or lost projection, or token sizes that are not"
        " counted in proportional attention."
    ),
    "similarity": "The metric (the mean of the keys over the heads) or its normalisation.",
    "selection": (
        "Which tokens may merge, the arg-max, or the ranking: class token, order of ties, sources and "
        "destinations."
    ),
    "size": "Sizes that are not carried from block to block, or tokens that leave in another order.",
    "merge": (
        "The mean must be weighted by size and must add every merged token; a scatter without addition "
        "keeps only the last."
    ),
    "mlp": "Weights that were lost or mixed up, or another form of GELU.",
    "head": "The last norm, pooling, or the classifier's weights.",
    "logits": "Every part is right by itself, but what is left adds up to more than rounding explains.",
    "sources": "The composed map of groups; the merging itself is right.",
    "batch": "Something is shared between the rows of a batch, or a batch size was fixed when tracing.",
}


def cause(part: str) -> str | None:
    """Where to look when a part is wrong."""
    return _CAUSES.get(part)


def runtime(name: str) -> str:
    return RUNTIMES.get(name, name)


def who(result: ParityResult) -> str:
    """ "ONNX Runtime fp32"."""
    return f"{runtime(result.runtime)} {result.precision}"


def place(finding: Finding) -> str:
    """ "Block 3, attention"; "Head"."""
    part = "MLP" if finding.part == "mlp" else finding.part
    return f"Block {finding.block}, {part}" if finding.block is not None else part[:1].upper() + part[1:]


def input_name(name: str) -> str:
    """Without its folder; synthetic inputs have none."""
    return name.replace("\\", "/").rpartition("/")[2] or name


LIMITS = {
    "stage": (
        "one part of a block, over its largest value",
        "A part is a few products, each a sum of some hundred terms. Summed in fp32, their errors grow with"
        " the square root of that number and the largest of many lies some deviations out; less precise "
        "formats are summed better than they are stored. A wrong operator shows at 1e-2 or more.",
    ),
    "gain": (
        "the scale of a LayerNorm as a whole",
        "Rounding may shift a single token by a unit or two, but hardly the mean over tokens and channels; "
        "another epsilon is seen here.",
    ),
    "similarity": (
        "similarities after the same merges",
        "Errors of the blocks before add up like their squares, so the limit of one part grows with the "
        "square root of their number; it is smaller by half, because similarities average over the channels"
        " of a head.",
    ),
    "logits": (
        "logits after the same merges, over their range",
        "The limit of one part, times the square root of the number of blocks. Logits as they come have no "
        "limit: a near tie that goes the other way may rightly change them by more.",
    ),
    "near_ties": (
        "decisions that may hang on rounding, on photographs and noise",
        "The last pair that merges and the first that does not lie about 1e-3 apart in similarity, so one "
        "decision in thousands hangs on the noise of fp32; with less precision more do, and they are "
        "counted.",
    ),
}
"""Field of `Limits` -> what it bounds, and why it is so large; `tome_export.parity.limits` computes it."""

GLOSSARY = {
    "Token": (
        "What a Vision Transformer computes with: a vector for each patch of the picture, and one or two "
        "special ones (class, distillation). A merged token stands for several patches."
    ),
    "Block": "One layer of the Transformer: norm, attention, merging, norm, MLP. Blocks are counted from 0.",
    "r": "How many tokens a block merges away.",
    "Decision": "For a token that might merge: whether it does, and into which other one.",
    "Near tie": (
        "A decision that differs from the reference's, between candidates whose similarities are closer "
        "together than the numerical noise. Both are right: rounding alone tells them apart."
    ),
    "Fault": (
        "A decision that differs by more than noise explains, or that does not follow from the runtime's "
        "own similarities. One fault fails the report."
    ),
    "Noise": (
        "The largest difference between a runtime's similarities and the reference's, in a block, after the"
        " same merges in all blocks before."
    ),
    "Same merges": (
        "The reference is made to merge the tokens that the runtime merged (teacher forcing); where it "
        "cannot be told, the runtime's model follows the reference. What is left is numerical error alone."
    ),
    "Error of a part": (
        "The reference computes one part of a block from what the runtime had before it. So an error is "
        "seen where it arises, and neither diluted nor carried on."
    ),
    "Dygraph": "The Paddle model as it runs in Python, before any export.",
    "Unit roundoff": (
        "The largest relative error of rounding one number: 2^-24 in fp32, 2^-11 in fp16, 2^-9 in bf16, "
        "1/254 of the largest value in int8."
    ),
}
