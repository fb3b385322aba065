"""Stands in for Triton's C++ ONNX Runtime backend, which the server's wheel lacks: the same config.pbtxt.

Copied to `backends/onnxruntime/model.py`, it is a backend written in Python. As strict as the C++ one about
names, types and shapes; like it, it runs the requests that the dynamic batcher joined as one batch.
"""

import json
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

_ONNX_TYPES = {"tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16", "tensor(int32)": "TYPE_INT32"}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        path = os.path.join(folder, config["default_model_filename"] or "model.onnx")
        options = onnxruntime.SessionOptions()
        threads = config["parameters"].get("intra_op_thread_count", {}).get("string_value")
        options.intra_op_num_threads = int(threads or 0)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.outputs = [output["name"] for output in config["output"]]
        (self.input,) = (each["name"] for each in config["input"])
        for said, there in (
            (config["input"], self.session.get_inputs()),
            (config["output"], self.session.get_outputs()),
        ):
            known = {each.name: each for each in there}
            for tensor in said:
                found = known[tensor["name"]]
                if _ONNX_TYPES[found.type] != tensor["data_type"]:
                    raise pb_utils.TritonModelException(f"{found.name} is {found.type}")
                if [int(size) for size in tensor["dims"]] != found.shape[1:] or isinstance(
                    found.shape[0], int
                ):
                    raise pb_utils.TritonModelException(f"{found.name} has shape {found.shape}")

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(each, self.input).as_numpy() for each in requests]
        results = self.session.run(self.outputs, {self.input: np.concatenate(images)})
        ends = np.cumsum([len(each) for each in images])[:-1]
        parts = zip(*(np.split(result, ends) for result in results), strict=True)
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, part) for name, part in zip(self.outputs, each, strict=True)]
            )
            for each in parts
        ]
