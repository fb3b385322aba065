"""The process that `tome_export.precision.fp16` starts.

    python -m tome_export.precision.fp16_child IN.onnx OUT.onnx   < {"kept": [0]}

Prints {"layers": ..., "opset": ...}, or {"error": ...}.
"""

from __future__ import annotations

import json
import sys


def main(source: str, target: str) -> None:
    import onnx

    from tome_export.errors import ConversionError
    from tome_export.precision.half import to_half

    model = onnx.load(source)
    try:
        layers = to_half(model, json.load(sys.stdin)["kept"])
    except ConversionError as error:
        print(json.dumps({"error": str(error)}))
        return
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if layers:
        onnx.save(model, target)
    print(json.dumps({"layers": len(layers), "opset": opset}))


if __name__ == "__main__":
    main(*sys.argv[1:])
