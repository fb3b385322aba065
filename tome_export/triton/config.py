"""`config.pbtxt` of the four models, as messages for `pbtxt.as_text`.

Field names are those of Triton's model_config.proto; an accelerator's parameters are those of its ONNX
Runtime backend. Every model takes batches, so `dims` leave the batch out.
"""

from __future__ import annotations

from typing import Any

from tome_export.manifest import Manifest, TensorInfo
from tome_export.triton.pbtxt import Symbol, pairs
from tome_export.triton.serving import Serving

MODEL_FILE = "model.onnx"
LABELS_FILE = "labels.txt"
JPEG, LABELS, PROBABILITIES, CLASSES = "jpeg", "labels", "probabilities", "classes"

Message = dict[str, Any]

_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "bool": "TYPE_BOOL",
}


def tensor_model(manifest: Manifest, serving: Serving, named: bool) -> Message:
    """The network itself. named: there is a labels file, for clients that ask Triton to classify."""
    outputs = [_tensor(output) for output in manifest.outputs]
    if named:
        outputs[0]["label_filename"] = LABELS_FILE
    return {
        "name": serving.name,
        "backend": "onnxruntime",
        "default_model_filename": MODEL_FILE,
        "max_batch_size": serving.max_batch,
        "input": [_tensor(manifest.inputs[0])],
        "output": outputs,
        "instance_group": _instances(serving.instances, serving.gpu),
        "dynamic_batching": _batching(serving),
        "model_warmup": [_warmup(manifest.inputs[0], size) for size in _warm_sizes(serving)],
        "optimization": _tensorrt(manifest.inputs[0], serving) if serving.tensorrt else None,
        "parameters": None
        if serving.threads is None
        else pairs({"intra_op_thread_count": {"string_value": str(serving.threads)}}),
    }


def preprocess_model(manifest: Manifest, serving: Serving) -> Message:
    """Bytes of picture files -> the network's input, on the CPU."""
    image = manifest.inputs[0]
    return {
        "name": f"{serving.name}_preprocess",
        "backend": "python",
        "max_batch_size": serving.max_batch,
        "input": [_bytes(JPEG, 1)],
        "output": [_tensor(image)],
        "instance_group": _instances(serving.preprocess_instances, gpu=False),
    }


def postprocess_model(manifest: Manifest, serving: Serving) -> Message:
    """Logits -> the best classes, on the CPU."""
    top = min(serving.top, manifest.model.num_classes)
    return {
        "name": f"{serving.name}_postprocess",
        "backend": "python",
        "max_batch_size": serving.max_batch,
        "input": [_tensor(manifest.outputs[0])],
        "output": _answers(top),
        "instance_group": _instances(1, gpu=False),
    }


def ensemble(manifest: Manifest, serving: Serving) -> Message:
    """Bytes of picture files -> labelled classes: the three others in a row."""
    top = min(serving.top, manifest.model.num_classes)
    image, logits = manifest.inputs[0].name, manifest.outputs[0].name
    answers = {name: name for name in (LABELS, PROBABILITIES, CLASSES)}
    return {
        "name": f"{serving.name}_jpeg",
        "platform": "ensemble",
        "max_batch_size": serving.max_batch,
        "input": [_bytes(JPEG, 1)],
        "output": _answers(top),
        "ensemble_scheduling": {
            "step": [
                _step(f"{serving.name}_preprocess", {JPEG: JPEG}, {image: image}),
                _step(serving.name, {image: image}, {logits: logits}),
                _step(f"{serving.name}_postprocess", {logits: logits}, answers),
            ]
        },
    }


def _tensor(tensor: TensorInfo) -> Message:
    return {"name": tensor.name, "data_type": Symbol(_TYPES[tensor.dtype]), "dims": list(tensor.shape[1:])}


def _bytes(name: str, count: int) -> Message:
    return {"name": name, "data_type": Symbol("TYPE_STRING"), "dims": [count]}


def _answers(top: int) -> list[Message]:
    return [
        _bytes(LABELS, top),
        {"name": PROBABILITIES, "data_type": Symbol("TYPE_FP32"), "dims": [top]},
        {"name": CLASSES, "data_type": Symbol("TYPE_INT32"), "dims": [top]},
    ]


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> Message:
    """Maps: name in the model -> name in the ensemble. -1: the newest version."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": pairs(inputs),
        "output_map": pairs(outputs),
    }


def _instances(count: int, gpu: bool) -> list[Message]:
    return [{"count": count, "kind": Symbol("KIND_GPU" if gpu else "KIND_CPU")}]


def _batching(serving: Serving) -> Message:
    return {
        "preferred_batch_size": sorted(set(serving.preferred_batches)) or None,
        "max_queue_delay_microseconds": serving.max_delay_us,
    }


def _warm_sizes(serving: Serving) -> list[int]:
    return sorted({1, *serving.preferred_batches, serving.max_batch})


def _warmup(image: TensorInfo, size: int) -> Message:
    """Zeros: whatever an engine does only once, it has done before the first request."""
    content = {
        "data_type": Symbol(_TYPES[image.dtype]),
        "dims": list(image.shape[1:]),
        "zero_data": True,
    }
    return {"name": f"batch {size}", "batch_size": size, "inputs": pairs({image.name: content})}


def _tensorrt(image: TensorInfo, serving: Serving) -> Message:
    """One engine for all batch sizes, kept on the server's disk.

    precision_mode stays FP32 whatever the model's: that leaves each tensor the type it has in the graph, so
    an fp16 model still decides in fp32 what merges. FP16 would let TensorRT choose.
    """
    shape = "x".join(map(str, image.shape[1:]))
    best = max(serving.preferred_batches, default=serving.max_batch)
    options = {
        "precision_mode": "FP32",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": f"/tmp/tome-export-engines/{serving.name}",
        "trt_profile_min_shapes": f"{image.name}:1x{shape}",
        "trt_profile_opt_shapes": f"{image.name}:{best}x{shape}",
        "trt_profile_max_shapes": f"{image.name}:{serving.max_batch}x{shape}",
    }
    accelerator = {"name": "tensorrt", "parameters": pairs(options)}
    return {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}
