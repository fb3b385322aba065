"""The process that `tome_export.onnx` starts.

    python -m tome_export.onnx_child MODEL.json WEIGHTS_FOLDER OUT.onnx OPSET OUTPUT,... TAP,...

The converter sees the graph without its weights, which needs a fifth of the memory; they are put in
afterwards, under their state-dict names. Prints `opset N` when the finished file is in place.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(model_file: str, weights_folder: str, onnx_file: str, opset: str, outputs: str, taps: str) -> None:
    import onnx
    import paddle2onnx

    from tome_export.onnx_graph import tidy
    from tome_export.onnx_weights import declare_weights, read_weights, write_model

    raw = Path(onnx_file).with_suffix(".raw.onnx")
    try:
        paddle2onnx.export(
            model_file,
            "",  # no weights
            save_file=str(raw),
            opset_version=int(opset),
            auto_upgrade_opset=True,  # the file says which opset it became
            enable_onnx_checker=False,  # the graph is not whole yet; `tidy` checks it
            optimize_tool="None",  # the default may install packages
        )
        model = onnx.load(raw)
    finally:
        raw.unlink(missing_ok=True)
    weights = read_weights(Path(weights_folder))
    declare_weights(model, weights)
    tidy(model, outputs.split(","), taps.split(","))
    write_model(model, weights, Path(onnx_file))
    written = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    print(f"opset {written}")


if __name__ == "__main__":
    main(*sys.argv[1:])
