"""TensorRT engines of a bundle's ONNX model. Not yet run on a GPU.

gpu.py: CUDA; engine.py: build one; cache.py: keep it. `runtimes/tensorrt_runtime.py` runs it.
"""
