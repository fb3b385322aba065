"""The runtime's own work: buffers, batches, order of outputs, parity, benchmark.

Over stand-ins for TensorRT and CUDA, in which ONNX Runtime computes. That TensorRT computes the same is for a
GPU to show.
"""

import re
from pathlib import Path

import pytest

from tests.export import small

STANDIN = Path(__file__).parent / "standin"


@pytest.fixture
def here(child, tmp_path):
    """Run code in a process that finds the stand-ins, and keeps its engines in a folder of its own."""

    def run(code, *arguments):
        cache = f"import os; os.environ['TOME_EXPORT_CACHE'] = {str(tmp_path)!r}"
        done = child(f"{cache}\n{code}", *arguments, path=(STANDIN,))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_outputs_batches_and_memory(here, small_bundles):
    said = here(
        """
import sys
import numpy as np, tensorrt
from cuda.bindings import runtime as cuda
from tome_export.bundle import Bundle
from tome_export.errors import RequestError
from tome_export.runtimes import open_runtime, probe
assert probe("tensorrt").detail == "Stand-in (8.9)" and probe("tensorrt").version == tensorrt.__version__
bundle = Bundle.open(sys.argv[1])
images = np.random.default_rng(0).normal(size=(64, 3, 64, 64)).astype(np.float32)
for taps in (False, True):
    with open_runtime("tensorrt", bundle, device="cuda:1", taps=taps) as runtime, \\
            open_runtime("onnx", bundle, taps=taps) as other:
        for rows in (slice(0, 1), slice(0, 64), slice(3, 5)):
            found, wanted = runtime.run(images[rows]), other.run(images[rows])
            assert list(found) == list(wanted) and len(found) == 2 + taps * len(bundle.taps)
            for name, array in found.items():
                assert array.dtype == wanted[name].dtype and array.flags.owndata
                np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-5)
        try:
            runtime.run(np.concatenate([images, images[:1]]))
        except RequestError as error:
            print(error)
    assert cuda.held() == 0
assert tensorrt.Builder.builds == 2
with open_runtime("tensorrt", bundle, device="cuda"):
    pass
assert tensorrt.Builder.builds == 2  # kept
for device in ("cuda:2", "cpu"):
    try:
        open_runtime("tensorrt", bundle, device=device)
    except RequestError as error:
        print(error)
""",
        small_bundles["small_vit", "r8"].path,
    )
    too_many = "this engine takes batches of 1 to 64, not 65; build another with tome-export build-engine"
    assert said.splitlines() == [
        f"{too_many} --max-batch",
        f"{too_many} --max-batch",
        "CUDA sees 2 GPUs, so there is no cuda:2",
        "TensorRT runs on GPUs only; use --device cuda, or another runtime",
    ]


def test_memory_that_the_gpu_does_not_have(here, small_bundles):
    said = here(
        """
import sys
from cuda.bindings import runtime as cuda
from tome_export.bundle import Bundle
from tome_export.errors import GpuError
from tome_export.runtimes import open_runtime
cuda.MEMORY = 1 << 20
try:
    open_runtime("tensorrt", Bundle.open(sys.argv[1]), device="cuda")
except GpuError as error:
    print(error)
assert cuda.held() == 0
""",
        small_bundles["small_vit", "r8"].path,
    )
    assert said.strip() == "out of memory"


def test_the_commands(here, small_bundles):
    said = here(
        """
import sys
from tome_export.cli import app
path = sys.argv[1]
for line in (
    f"build-engine {path} --opt-batch 2 --max-batch 4",
    f"build-engine {path} --opt-batch 2 --max-batch 4",
    f"verify {path} --against onnx --runtimes tensorrt --device cuda --samples 3",
    f"bench {path} --runtime tensorrt --device cuda --rounds 1 --no-memory --batch 1,4",
):
    print("=====", app(line.split(), standalone_mode=False), flush=True)
""",
        small_bundles["small_vit", "r8"].path,
    )
    built, again, verified, benched, _ = re.split(r"===== None\n", said)
    assert "Stand-in, compute capability 8.9, TensorRT 10.13.3.9" in built
    assert "batches of 1 to 4, fastest at 2" in built and "built before" not in built
    assert "built before" in again
    (row,) = re.findall(r"^  tensorrt .* ok$", verified, re.MULTILINE)
    row = row.split()
    assert row[:2] == ["tensorrt", "fp32"] and row[2] == row[4] != "0"  # all merges agree, and there are some
    assert len(re.findall(r"tensorrt 10\.13\.3\.9 +fp32 +\d+\.\d ms", benched)) == 2  # batches of 1 and 4


def test_half_precision_is_the_graphs(here, tmp_path):
    """fp16 where the bundle's fp16 model has it, and held to fp16's limits."""
    bundle = small.export_small("small_vit", tmp_path / "bundle", r=8, precisions=("fp32", "fp16"))
    said = here(
        """
import sys
from tome_export.cli import app
for line in (
    "build-engine {} --precision fp16 --max-batch 8",
    "verify {} --against onnx --runtimes tensorrt --device cuda --samples 3",
):
    print("=====", app(line.format(sys.argv[1]).split(), standalone_mode=False), flush=True)
import tensorrt
print(tensorrt.Builder.builds)
""",
        bundle.path,
    )
    built, verified, builds = re.split(r"===== None\n", said)
    assert "build the fp16 engine" in built
    rows = [row.split() for row in re.findall(r"^  tensorrt .* ok$", verified, re.MULTILINE)]
    assert [row[1] for row in rows] == ["fp32", "fp16"]
    different = [float(row[-4]) for row in rows]  # logits over their range
    assert different[0] < 1e-5 < different[1] < 1e-2
    assert builds.strip() == "4"  # as shipped and showing what is inside, in both precisions
