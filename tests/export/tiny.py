"""A real model small enough to trace and convert in a second, and the bundle it makes."""

import subprocess
import sys
from pathlib import Path

from tome_export import manifest as m
from tome_export.bundle import Bundle, BundleWriter
from tome_export.parity.limits import limits
from tome_export.parity.result import BlockResult, Figures, ParityResult
from tome_export.preprocess import preset

CLASSES, SIZE, PATCH, WIDTH = 5, 32, 8, 16
TOKENS = (SIZE // PATCH) ** 2

PARITY = ParityResult(
    runtime="onnx",
    precision="fp32",
    against="dygraph",
    inputs=6,
    batch_sizes=(1, 2),
    max_abs=1e-6,
    mean_abs=1e-7,
    max_rel=1e-5,
    cosine_min=1.0,
    psnr=None,
    top1_agreement=1.0,
    top5_agreement=1.0,
    forced=Figures(1e-6, 1e-7, 1e-5, 1.0, 120.0, 1.0, 1.0),
    merge_agreement=0.75,
    decisions=4,
    near_ties=1,
    blocks=(BlockResult(0, 16, 4, 4, 3, 1, 0, 1e-6, {"norm1": 1e-7}),),
    findings=(),
    limits=limits("fp32", 2),
    tolerance=1e-4,
    passed=True,
)

_CONVERT = """
import sys, paddle2onnx
paddle2onnx.export(sys.argv[1] + ".json", sys.argv[1] + ".pdiparams", save_file=sys.argv[2], opset_version=17,
                   auto_upgrade_opset=False, optimize_tool="None")
"""


def make_layer():
    """A two-block patch mixer: image -> logits float32 [n, classes], sources int32 [n, tokens]."""
    import paddle
    from paddle import nn

    class Tiny(nn.Layer):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2D(3, WIDTH, PATCH, PATCH)
            self.blocks = nn.LayerList([nn.Linear(WIDTH, WIDTH) for _ in range(2)])
            self.norm = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, CLASSES)

        def forward(self, image):
            x = self.embed(image).flatten(2).transpose([0, 2, 1])
            for block in self.blocks:
                x = x + nn.functional.gelu(block(self.norm(x)))
            sources = paddle.argsort(x.sum(-1), axis=1, stable=True).astype("int32")
            return self.head(x.mean(1)), sources

    paddle.seed(7)
    layer = Tiny()
    layer.eval()
    return layer


def save_model(layer, folder: Path) -> None:
    """Trace to inference.json and .pdiparams, convert to inference.onnx (in a child: it may abort)."""
    import paddle

    spec = [paddle.static.InputSpec([-1, 3, SIZE, SIZE], "float32", name="image")]
    static = paddle.jit.to_static(layer, input_spec=spec, full_graph=True)
    stem = str(folder / "inference")
    paddle.jit.save(static, stem)
    subprocess.run(
        [sys.executable, "-c", _CONVERT, stem, stem + ".onnx"], check=True, capture_output=True, timeout=120
    )


def make_manifest(**changes) -> m.Manifest:
    """The tiny model's manifest, hashes not yet filled in."""
    values = dict(
        model=m.ModelInfo("tiny", "mixer", SIZE, PATCH, CLASSES, depth=2, embed_dim=WIDTH, num_heads=1),
        weights=m.WeightsInfo("random", seed=7),
        tome=m.TomeInfo(
            r=(4, 2),
            prop_attn=True,
            tokens=(16, 12, 10),
            macs=m.Macs(base=1000, tome=800, base_blocks=(400, 400), tome_blocks=(400, 300)),
        ),
        inputs=(m.TensorInfo("image", "float32", (-1, 3, SIZE, SIZE)),),
        outputs=(
            m.TensorInfo("logits", "float32", (-1, CLASSES)),
            m.TensorInfo("sources", "int32", (-1, TOKENS)),
        ),
        preprocess=preset("vit", SIZE),
        artifacts=(
            m.Artifact("paddle", "fp32", {"inference.json": "", "inference.pdiparams": ""}),
            m.Artifact("onnx", "fp32", {"inference.onnx": ""}, opset=17),
        ),
        parity=(PARITY,),
        versions=m.Versions.installed(),
        created=m.utc_now(),
    )
    return m.Manifest(**(values | changes))


def write_bundle(out: Path, source: Path, **changes) -> Bundle:
    """A complete bundle at `out` with the model files found in `source`."""
    with BundleWriter(out) as writer:
        for name in ("inference.json", "inference.pdiparams", "inference.onnx"):
            (writer.folder / name).write_bytes((source / name).read_bytes())
        return writer.commit(make_manifest(**changes))
