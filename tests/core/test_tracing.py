"""Every operator survives tracing with a dynamic batch and gives, in Paddle Inference, what dygraph gives."""

import numpy as np
import paddle
import pytest
from paddle.inference import Config, create_predictor
from paddle.static import InputSpec

from tests.tiny_models import FAMILIES, tiny_model
from tome_core.matching import (
    bipartite_soft_matching,
    kth_bipartite_soft_matching,
    random_bipartite_soft_matching,
)
from tome_core.merging import merge_mean, merge_source, merge_sum, merge_wavg, unmerge
from tome_core.patch import apply_patch

# jit.save says so of a layer that has operators and no parameters, which is the point here
pytestmark = pytest.mark.filterwarnings("ignore:no variable in your model")

TOKENS, CHANNELS = 14, 6
FIRST_MATCH = {
    "plain": lambda x: bipartite_soft_matching(x, 5),
    "class": lambda x: bipartite_soft_matching(x, 5, class_token=True),
    "distill": lambda x: bipartite_soft_matching(x, 5, class_token=True, distill_token=True),
    "kth": lambda x: kth_bipartite_soft_matching(x, 4),
    "random": lambda x: random_bipartite_soft_matching(x, 5, seed=3),
    "identity": lambda x: bipartite_soft_matching(x, 0),
}


class TwoMerges(paddle.nn.Layer):
    """Two merges in a row, so that sizes and sources of the first enter the second."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        first = FIRST_MATCH[self.kind](x)
        y, size = merge_wavg(first, x, None)
        source = merge_source(first, None)
        second = bipartite_soft_matching(y, 2, class_token=True)
        z, size_after = merge_wavg(second, y + (size + 0.0).log(), size)
        back = unmerge(first, unmerge(second, z))
        sums, means = merge_sum(second, y), merge_mean(second, y)
        return z, size_after, back, sums, means, merge_source(second, source), first.group


class WithSource(paddle.nn.Layer):
    """A patched model that returns its source map beside the logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        logits = self.model(x)
        return logits, self.model.tome.source


def run_predictor(path, onednn, batches):
    """Outputs for each batch, one after the other in the same predictor, under its default passes."""
    config = Config(f"{path}.json", f"{path}.pdiparams")
    config.disable_gpu()
    config.disable_glog_info()
    if onednn:
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    predictor = create_predictor(config)
    outputs = []
    for batch in batches:
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(batch)
        predictor.run()
        names = predictor.get_output_names()
        outputs.append([predictor.get_output_handle(name).copy_to_cpu() for name in names])
    return outputs


def check_traced(layer, shape, folder, tolerance):
    """Trace with a dynamic batch; batch 1, 3, then 1 again, with and without oneDNN, equal dygraph."""
    layer.eval()
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(batch, *shape)).astype("float32") for batch in (1, 3, 1)]
    expected = [[tensor.numpy() for tensor in layer(paddle.to_tensor(batch))] for batch in batches]

    path = str(folder / "traced")
    spec = [InputSpec([None, *shape], "float32", name="x")]
    paddle.jit.save(paddle.jit.to_static(layer, input_spec=spec, full_graph=True), path)
    for onednn in (False, True):
        for outputs, wanted in zip(run_predictor(path, onednn, batches), expected, strict=True):
            assert len(outputs) == len(wanted)
            for actual, want in zip(outputs, wanted, strict=True):
                assert actual.dtype == want.dtype and actual.shape == want.shape
                np.testing.assert_allclose(actual, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", list(FIRST_MATCH))
def test_operators(kind, tmp_path):
    check_traced(TwoMerges(kind), [TOKENS, CHANNELS], tmp_path, tolerance=1e-5)


@pytest.mark.parametrize("prop_attn", [True, False])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_whole_models_of_four_merging_blocks(family, prop_attn, tmp_path):
    model = apply_patch(tiny_model(family, depth=4), prop_attn=prop_attn, trace_source=True)
    model.r = [7, 6, 5, 4]
    check_traced(WithSource(model), [3, 48, 48], tmp_path, tolerance=1e-4)
