"""What an engine really does with a graph: refuse it, or run it, right or wrong."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile

import numpy as np
import onnx


def reference(model: onnx.ModelProto, feeds: dict) -> list[np.ndarray] | None:
    """The answer of ONNX's own reference implementation, or None if it has none
    for these types."""
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(model).run(None, feeds)
    except Exception:
        return None


def run_onnxruntime(model: onnx.ModelProto, feeds: dict) -> list[np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def optimised_operators(model: onnx.ModelProto) -> list[str]:
    """The operators of the graph that ONNX Runtime makes of the model, in order."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@functools.cache
def _core():
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    return core


def run_openvino(model: onnx.ModelProto, feeds: dict) -> list[np.ndarray]:

    read = _core().read_model(io.BytesIO(model.SerializeToString()))
    compiled = _core().compile_model(read, "CPU")
    request = compiled.create_infer_request()
    result = request.infer([np.asarray(value, order="C") for value in feeds.values()])
    return [np.array(result[i]) for i in range(len(compiled.outputs))]


ENGINES = {"onnxruntime-cpu": run_onnxruntime, "openvino": run_openvino}


def outcome(target: str, model: onnx.ModelProto, feeds: dict) -> tuple[str, str]:
    """("refused" | "right" | "wrong" | "ran", what it said). Compared with ONNX's reference
    implementation; where
    that has no answer, with ONNX Runtime; "ran" where there is nothing to compare with."""
    try:
        found = ENGINES[target](model, feeds)
    except Exception as error:
        return "refused", " ".join(str(error).split())[:300]
    wanted = reference(model, feeds)
    if wanted is None and target != "onnxruntime-cpu":
        with contextlib.suppress(Exception):
            wanted = run_onnxruntime(model, feeds)
    if wanted is None:
        return "ran", ""
    for one, other in zip(found, wanted, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape:
            return "wrong", f"shape {one.shape}, not {other.shape}"
        near = {"rtol": 2e-2, "atol": 2e-2, "equal_nan": True}
        if not np.allclose(one.astype(np.float64), other.astype(np.float64), **near):
            return "wrong", f"{one.ravel()[:4]} not {other.ravel()[:4]}"
    return "right", ""
