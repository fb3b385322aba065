"""Dygraph model -> Paddle inference model (`inference.json` and `inference.pdiparams`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from tome_core.folding import folded
from tome_core.taps import tapped
from tome_export.errors import ConversionError

INPUT = "image"
OUTPUTS = ("logits", "sources")


class ExportGraph(nn.Layer):
    """What the exported graph computes: image, float32 [batch, 3, H, W] -> the asked-for outputs in order,
    then every tensor that `tome_core.schedule.tap_names` lists."""

    def __init__(self, model: nn.Layer, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.outputs = tuple(outputs)

    def forward(self, image):
        logits = self.model(image)
        by_name = {"logits": logits, "sources": self.model.tome.source}
        return tuple(by_name[name] for name in self.outputs) + tuple(self.taps.values())


def save_inference_model(
    model: nn.Layer, outputs: Sequence[str], image_size: int, folder: Path, weights_folder: Path | None = None
) -> None:
    """Trace a patched model with a dynamic batch and save it in `folder`. Raises ConversionError.

    Also saves `inference.debug.json`: the same graph with the tensors of `tome_core.schedule.tap_names` as
    further outputs; its parameters are those of `inference.pdiparams`.
    weights_folder: also write each parameter of the graph there, for `tome_export.onnx`.
    """
    graph = ExportGraph(model, outputs)
    graph.eval()
    spec = [InputSpec([None, 3, image_size, image_size], "float32", name=INPUT)]
    # GPU builds would trace Linear to an operator that the ONNX converter does not know.
    legacy_linear = {"FLAGS_use_legacy_linear": True}
    try:
        paddle.set_flags(legacy_linear)
    except ValueError:  # Paddle before 3.3.1 has neither the flag nor the operator
        pass
    try:
        with folded(model), tapped(model) as graph.taps, paddle.no_grad():
            traced = paddle.jit.to_static(graph, input_spec=spec, full_graph=True)
            found = traced.forward.concrete_program.outputs
            paddle.jit.save(traced, str(folder / "inference.debug"))
            paddle.jit.save(traced, str(folder / "inference"), output_spec=list(found[: len(outputs)]))
            if weights_folder is not None:
                _save_weights(model, weights_folder)
    except Exception as error:
        raise ConversionError(f"tracing the model failed: {str(error).strip().splitlines()[-1]}") from error
    (folder / "inference.debug.pdiparams").unlink()


def _save_weights(model: nn.Layer, folder: Path) -> None:
    """One .npy file a parameter, and `names.json`: name in the traced graph -> [state-dict key, file]."""
    folder.mkdir()
    names = {}
    for index, (key, parameter) in enumerate(model.named_parameters()):
        names[parameter.name] = [key, f"{index}.npy"]
        np.save(folder / f"{index}.npy", parameter.numpy())
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")
