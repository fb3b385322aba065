"""The opponent of `against_torch`: timm's ViT with Token Merging in plain torch, exported by `torch.onnx`.

    python benchmarks/timm_tome.py FOLDER --model vit_base_patch16_224 --r 16

Written from the paper (Bolya et al., ICLR 2023, section 3), with the operations that the method is known by:
tokens split into even and odd, gathers of the unmerged and the sources, a scatter-add onto the destinations.
Needs torch, timm and onnxscript, and nothing of tome-export, so that it can run in another environment.

Writes to FOLDER weights.safetensors (random, timm's initialisation); an ONNX file for each of r = 0 and R and
each exporter; and made.json, which says what was made by what.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

OPSET = 20  # the default of torch 2.13, as high as its legacy exporter goes


def match(metric: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which of the even tokens stay, which merge, and into which odd ones. Token 0 always stays.

    metric: [batch, tokens, channels]. Returns int64 places [batch, even - r, 1] and twice [batch, r, 1].
    """
    unit = metric / metric.norm(dim=-1, keepdim=True)
    similarity = unit[:, ::2] @ unit[:, 1::2].transpose(-1, -2)
    similarity[:, 0] = -torch.inf
    best, nearest = similarity.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    source = order[:, :r]
    kept = order[:, r:].sort(dim=-1).values
    return kept[..., None], source[..., None], nearest.gather(1, source)[..., None]


def merge(x: torch.Tensor, found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Sums of the groups: [batch, tokens, channels] -> [batch, tokens - r, channels]."""
    kept, source, destination = (places.expand(-1, -1, x.shape[-1]) for places in found)
    even, odd = x[:, ::2], x[:, 1::2]
    merged = odd.scatter_reduce(1, destination, even.gather(1, source), reduce="sum")
    return torch.cat([even.gather(1, kept), merged], dim=1)


def attend(attn: nn.Module, x: torch.Tensor, size: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """timm's attention, proportional to the tokens' sizes; and the mean over heads of the keys."""
    batch, tokens, channels = x.shape
    qkv = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    weights = (q * attn.scale) @ k.transpose(-2, -1)
    if size is not None:
        weights = weights + size.log()[:, None, None, :, 0]
    x = weights.softmax(dim=-1) @ v
    return attn.proj(x.transpose(1, 2).reshape(batch, tokens, channels)), k.mean(1)


class MergingViT(nn.Module):
    """A timm ViT, with a class token and without extras such as LayerScale, that merges r tokens a block."""

    def __init__(self, vit: nn.Module, r: int):
        super().__init__()
        self.vit, self.r = vit, r

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        vit, size = self.vit, None
        x = vit._pos_embed(vit.patch_embed(image))
        for block in vit.blocks:
            attended, metric = attend(block.attn, block.norm1(x), size)
            x = x + attended
            r = min(self.r, (x.shape[1] - 1) // 2)
            if r > 0:
                found = match(metric, r)
                size = torch.ones_like(x[..., :1]) if size is None else size
                x, size = merge(x * size, found), merge(size, found)
                x = x / size
            x = x + block.mlp(block.norm2(x))
        return vit.forward_head(vit.norm(x))


@torch.no_grad()
def to_onnx(model: nn.Module, path: Path, exporter: str, pixels: int) -> None:
    """exporter: "dynamo", the default of torch.onnx, or "legacy", by TorchScript. Any batch size."""
    image = (torch.randn(2, 3, pixels, pixels),)
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": OPSET}
    if exporter == "dynamo":
        shapes = ({0: torch.export.Dim("batch", max=1024)},)
        torch.onnx.export(model, image, path, dynamic_shapes=shapes, **names)
    else:
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(model, image, path, dynamo=False, dynamic_axes=axes, **names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--r", type=int, default=16)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    vit = timm.create_model(arguments.model, pretrained=False).eval()
    save_file(vit.state_dict(), arguments.folder / "weights.safetensors")
    pixels = vit.patch_embed.img_size[0]
    seconds = {}
    for r in (0, arguments.r):
        model = MergingViT(vit, r).eval() if r else vit  # timm's own attention where nothing merges
        for exporter in ("dynamo", "legacy"):
            path = arguments.folder / f"r{r}-{exporter}.onnx"
            start = time.perf_counter()
            to_onnx(model, path, exporter, pixels)
            seconds[path.stem] = time.perf_counter() - start
    made = {"model": arguments.model, "r": arguments.r, "opset": OPSET, "seconds": seconds}
    made["versions"] = {"torch": torch.__version__, "timm": timm.__version__}
    (arguments.folder / "made.json").write_text(json.dumps(made, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
