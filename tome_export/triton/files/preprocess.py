"""Triton's Python backend: bytes of picture files -> the network's input.

Needs numpy and Pillow. The folders `tome_export` and `tome_core` beside this file hold the few modules that
the exporting program prepares pictures with, so that both make the same numbers.
"""

import json
import os
import sys
from io import BytesIO

import numpy as np
import triton_python_backend_utils as pb_utils

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from tome_export.errors import ImageError  # noqa: E402
from tome_export.preprocess import Preprocess, decode_image  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.output = config["output"][0]["name"]
        self.dtype = pb_utils.triton_string_to_numpy(config["output"][0]["data_type"])
        with open(os.path.join(HERE, "preprocess.json"), encoding="utf-8") as file:
            self.recipe = Preprocess(**json.load(file))

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        """A picture that cannot be read fails its own request and no other."""
        files = pb_utils.get_input_tensor_by_name(request, "jpeg").as_numpy().reshape(-1)
        images = []
        for number, content in enumerate(files):
            try:
                images.append(self.recipe.apply(decode_image(BytesIO(content)))[0])
            except ImageError as error:
                text = f"picture {number + 1} of {len(files)}: {error}"
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(text))
        batch = np.stack(images).astype(self.dtype, copy=False)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.output, batch)])
