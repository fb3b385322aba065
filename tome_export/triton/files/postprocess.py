"""Triton's Python backend: logits -> the best classes with their softmax probabilities, best first.

Needs numpy. Classes without names are called "class N".
"""

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.input = config["input"][0]["name"]
        self.top = int(config["output"][0]["dims"][0])
        count = int(config["input"][0]["dims"][0])
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "labels.json")
        with open(path, encoding="utf-8") as file:
            labels = json.load(file) or [f"class {index}" for index in range(count)]
        self.labels = np.array([label.encode() for label in labels], dtype=object)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        logits = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy().astype(np.float64)
        exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability = exponential / exponential.sum(axis=1, keepdims=True)
        best = np.argsort(-logits, axis=1, kind="stable")[:, : self.top]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("labels", self.labels[best]),
                pb_utils.Tensor(
                    "probabilities", np.take_along_axis(probability, best, axis=1).astype(np.float32)
                ),
                pb_utils.Tensor("classes", best.astype(np.int32)),
            ]
        )
