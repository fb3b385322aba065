"""Which way of writing the merge is fastest? ViT-B/16 exported with each, timed side by side.

    python -m benchmarks.merge_formulations [--rounds 25] [--model vit_b16] [--r 16] [--batch 1]

The forms compute the same thing; each exported model is compared with dygraph before it is timed. The
product's is `matrix`. The table in docs/merging.md was made with this script.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from tome_core import apply_patch, create_model, matching, merging
from tome_core import patch as patch_module
from tome_core.ops import constant, fresh
from tome_core.taps import tapped
from tome_core.zoo.random_init import randomise
from tome_export.benching.machine import machine
from tome_export.benching.turns import interleave
from tome_export.quiet import quiet

THREADS = 2


@dataclass(frozen=True)
class IndexMatch:
    """Index tensors of a bipartite match, as the published code keeps them. Class token only."""

    unmerged: paddle.Tensor  # int64 [batch, kept], places in A
    source: paddle.Tensor  # int64 [batch, r], places in A
    destination: paddle.Tensor  # int64 [batch, r], places in B
    tokens_in: int


def index_match(metric, r) -> IndexMatch:
    tokens = metric.shape[1]
    scores = metric[:, ::2].matmul(metric[:, 1::2], transpose_y=True)
    in_a = (tokens + 1) // 2
    best = scores.max(-1) + constant([-8.0] + [0.0] * (in_a - 1), [1, -1])
    order = best.argsort(axis=-1, descending=True, stable=True)
    source = order[:, :r]
    destination = paddle.take_along_axis(scores.argmax(-1), source, axis=1, broadcast=False)
    return IndexMatch(order[:, r:].sort(axis=-1), source, destination, tokens)


def scatter(metric, r, x, size):
    """Gather the unmerged and the sources, scatter-add the sources onto the destinations."""
    match = index_match(metric, r)
    size = paddle.ones_like(x[:, :, :1]) if size is None else size
    merged_size = _scatter(match, size)
    return _scatter(match, x * size) * fresh(merged_size).reciprocal(), merged_size


def _scatter(match: IndexMatch, x):
    wide = paddle.to_tensor(np.ones((1, 1, x.shape[-1]), "int64"))
    a, b = x[:, ::2], x[:, 1::2]
    kept = paddle.take_along_axis(a, match.unmerged.unsqueeze(-1) * wide, 1, broadcast=False)
    moved = paddle.take_along_axis(a, match.source.unsqueeze(-1) * wide, 1, broadcast=False)
    target = match.destination.unsqueeze(-1) * wide
    return paddle.concat([kept, paddle.put_along_axis(b, target, moved, 1, reduce="add", broadcast=False)], 1)


def gather(metric, r, x, size):
    """Gather the unmerged rows; add the sources to the destinations by a one-hot product of r columns."""
    match = index_match(metric, r)
    size = paddle.ones_like(x[:, :, :1]) if size is None else size
    places = constant(range(match.tokens_in // 2), [1, -1, 1])
    one_hot = (match.destination.astype("float32").unsqueeze(1) == places).astype("float32")
    image = paddle.cumsum(paddle.ones_like(x[:, :1, 0]), axis=0).astype("int64") - 1

    def rows(values, index):  # one flat gather: index counts A, which is every second token
        flat = (index * 2 + image * match.tokens_in).reshape([-1])
        return (
            values.reshape([-1, values.shape[-1]])
            .gather(flat)
            .reshape([-1, index.shape[1], values.shape[-1]])
        )

    merged = size[:, 1::2] + one_hot.matmul(rows(size, match.source))
    weighted = x * size
    b = weighted[:, 1::2] + one_hot.matmul(rows(weighted, match.source))
    kept = rows(x, match.unmerged)
    merged_x = paddle.concat([kept, b * fresh(merged).reciprocal()], 1)
    return merged_x, paddle.concat([rows(size, match.unmerged), merged], 1)


def matrix(metric, r, x, size):
    """The product's."""
    scores = matching.candidate_scores(metric, class_token=True, unit_length=True)
    return merging.merge_wavg(matching.select(scores, r, class_token=True), x, size)


def compared(metric, r, x, size):
    """The matrix by comparing labels with positions, which a one-hot vector of the position does faster."""

    class Compared(matching.Match):
        @property
        def matrix(self):
            rows = paddle.to_tensor(np.reshape(self.rows, (1, -1, 1)))
            return (self.label.unsqueeze(1) == rows).astype("float32")

    scores = matching.candidate_scores(metric, class_token=True, unit_length=True)
    match = matching.select(scores, r, class_token=True)
    return merging.merge_wavg(Compared(match.label, match.rows), x, size)


FORMS = {"matrix": matrix, "matrix, compared": compared, "gather + one-hot": gather, "scatter-add": scatter}


def export(name: str, r: int, form: Callable, folder: Path, image: np.ndarray) -> np.ndarray:
    """Export one form to `folder` and return what dygraph computes for `image`."""
    from tome_export.onnx import convert_to_onnx
    from tome_export.trace import save_inference_model

    @paddle.jit.not_to_static
    def merge(state, index, metric, x, size, source, unit_length):
        if not unit_length:
            metric = metric * ((metric * metric).sum(-1, keepdim=True) + 1e-30).rsqrt()
        return *form(metric, state.schedule.r[index], x, size), source

    patch_module._merge = merge
    model = create_model(name)
    randomise(model, seed=0)
    apply_patch(model).r = r
    with paddle.no_grad(), tapped(model) as taps:
        expected = model(paddle.to_tensor(image)).numpy()
    folder.mkdir()
    save_inference_model(model, ["logits"], model.config.image_size, folder, folder / "weights")
    convert_to_onnx(folder, folder / "weights", ["logits"], list(taps))
    return expected


def runners(folder: Path, image: np.ndarray):
    """Functions that run the exported model on ONNX Runtime and on Paddle Inference with oneDNN."""
    import onnxruntime
    from paddle.inference import Config, create_predictor

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(folder / "inference.onnx"), options)
    config = Config(str(folder / "inference.json"), str(folder / "inference.pdiparams"))
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(THREADS)
    predictor = create_predictor(config)
    feed = predictor.get_input_handle("image")
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def paddle_run():
        feed.copy_from_cpu(image)
        predictor.run()
        return result.copy_to_cpu()

    return {"onnx": lambda: session.run(None, {"image": image})[0], "paddle": paddle_run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_b16")
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    from tome_export.parity.samples import make_batch
    from tome_export.preprocess import preset

    image = make_batch(("photo:0",) * arguments.batch, preset("vit", 224))
    forms = {"r = 0": (0, matrix)} | {name: (arguments.r, form) for name, form in FORMS.items()}
    with tempfile.TemporaryDirectory() as scratch, quiet() as session:
        contenders: dict[str, dict] = {"onnx": {}, "paddle": {}}
        for index, (name, (r, form)) in enumerate(forms.items()):
            folder = Path(scratch) / str(index)
            expected = export(arguments.model, r, form, folder, image)
            for runtime, run in runners(folder, image).items():
                error = np.abs(run() - expected).max() / np.ptp(expected)
                if not error < 1e-4:
                    raise SystemExit(f"{name} on {runtime} is wrong: {error:.1e} of the range")
                contenders[runtime][name] = run
        print(f"{arguments.model}, batch {arguments.batch}; {machine(THREADS)}", file=session.stdout)
        for runtime, runs in contenders.items():
            print(f"\n{runtime:<24}{'time':>11}   speed-up (quartiles) over r = 0", file=session.stdout)
            for name, timing in interleave(runs, arguments.rounds).items():
                print(f"  {name:<22}{timing}", file=session.stdout, flush=True)


if __name__ == "__main__":
    main()
