"""The process that `tome_export.precision.int8` starts.

    python -m tome_export.precision.int8_child IN.onnx OUT.onnx   < {"kept": [0], "calibration": ["0.npy"]}

Without calibration, activations are scaled as they come: DynamicQuantizeLinear and MatMulInteger, which ONNX
Runtime fuses, bias included. With it, in QDQ form by the smallest and largest values seen: on trained models
that lost less than percentiles, because the few large activations of a ViT matter. Prints
{"layers": ..., "opset": ...}.
"""

from __future__ import annotations

import json
import sys


def main(source: str, target: str) -> None:
    import numpy as np
    import onnx
    from onnxruntime import quantization

    from tome_export.precision.layers import split_metric, unquantised_metric

    asked = json.load(sys.stdin)
    model = onnx.load(source)
    layers = split_metric(model, asked["kept"])
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    answer = json.dumps({"layers": len(layers), "opset": opset})
    if not layers:
        print(answer)
        return
    shapes = list(model.graph.value_info)
    common = {
        "nodes_to_quantize": [layer.node for layer in layers],
        "op_types_to_quantize": ["MatMul"],
        "weight_type": quantization.QuantType.QInt8,
        "per_channel": True,
    }
    known_type = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    if asked["calibration"]:

        class Pictures(quantization.CalibrationDataReader):
            def __init__(self) -> None:
                self._files = iter(asked["calibration"])

            def get_next(self) -> dict | None:
                file = next(self._files, None)
                return None if file is None else {model.graph.input[0].name: np.load(file)}

        # A product's result stays in float, for the bias and what follows.
        options = {"OpTypesToExcludeOutputQuantization": ["MatMul"], "MatMulConstBOnly": True}
        quantization.quantize_static(
            model,
            target,
            Pictures(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options=options | known_type,
            **common,
        )
    else:
        quantization.quantize_dynamic(model, target, extra_options=known_type, **common)
    quantised = onnx.load(target)
    unquantised_metric(quantised)
    _restore_shapes(quantised, shapes)
    onnx.save(quantised, target)
    print(answer)


def _restore_shapes(model, shapes) -> None:
    """The quantiser may drop shapes; the debug variant needs those of the named tensors."""
    made = {name for node in model.graph.node for name in node.output}
    there = {value.name for value in model.graph.value_info}
    model.graph.value_info.extend(value for value in shapes if value.name in made and value.name not in there)


if __name__ == "__main__":
    main(*sys.argv[1:])
