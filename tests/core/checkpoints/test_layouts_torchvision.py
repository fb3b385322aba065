"""torchvision's own class, with random weights: ours computes the same. Needs torch and torchvision."""

import numpy as np
import paddle
import pytest

from tome_core import create_model
from tome_core.checkpoints import read_checkpoint
from tome_core.checkpoints.layouts import convert
from tome_core.checkpoints.loading import load_weights

from .foreign import CLASSES, DEPTH, HEADS, HIDDEN, PATCH, SIZE, WIDTH

torch = pytest.importorskip("torch")
try:
    from torchvision.models.vision_transformer import VisionTransformer
except Exception as error:  # a build for another torch fails with RuntimeError
    pytest.skip(f"torchvision cannot be imported: {error}", allow_module_level=True)


@pytest.mark.parametrize("representation_size", [None, 40])
def test_torchvision(tmp_path, representation_size, record_property):
    model = VisionTransformer(
        image_size=SIZE,
        patch_size=PATCH,
        num_layers=DEPTH,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        mlp_dim=HIDDEN,
        num_classes=CLASSES,
        representation_size=representation_size,
    ).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and "token" not in name else 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=draw) + ("ln" in name))
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    checkpoint = read_checkpoint(tmp_path / "vit.pth")
    converted = convert(checkpoint.tensors, format=checkpoint.format)
    assert converted.layout == "torchvision"
    ours = create_model("vit_ti16", **{"num_heads": HEADS, **converted.changes})
    load_weights(ours, converted.tensors)

    image = np.random.default_rng(5).normal(size=(2, 3, SIZE, SIZE)).astype("f4")
    with torch.no_grad():
        expected = model(torch.from_numpy(image)).numpy()
    found = float(np.abs(ours(paddle.to_tensor(image)).numpy() - expected).max() / np.abs(expected).max())
    record_property("deviation", found)
    assert found < 1e-4
