"""Stands in for TensorRT where there is no GPU; ONNX Runtime computes.

It has the names and signatures that the runtime uses, as the docstrings of TensorRT's Python bindings 10.13
and 11.4 give them. An engine is the ONNX model with its profile. Like TensorRT, it refuses batches out of
range, and wants shapes and addresses before it runs.
"""

import ctypes
import pickle
from math import prod
from types import SimpleNamespace

import numpy as np
import onnxruntime
from cuda.bindings import runtime as cuda

__version__ = "10.13.3.9"

TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
BuilderFlag = SimpleNamespace(TF32="tf32")
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_TYPES |= {f"tensor({name})": name for name in ("int32", "int64")}


class Logger:
    ERROR = 1

    def __init__(self, severity):
        assert severity == Logger.ERROR


class Builder:
    builds = 0

    def __init__(self, logger):
        pass

    def create_network(self, flags=0):
        assert flags == 2  # strongly typed
        return Network()

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Shapes()

    def build_serialized_network(self, network, config):
        assert not config.tf32
        ((name, shapes),) = config.profiles[0].shapes.items()
        assert name == network.get_input(0).name
        Builder.builds += 1
        return pickle.dumps((network.model, network.path, name, shapes))


class Network:
    model = path = None

    def get_input(self, index):
        assert index == 0
        return SimpleNamespace(name=_session(self.model, self.path).get_inputs()[0].name)


class OnnxParser:
    def __init__(self, network, logger):
        self._network = network
        self.num_errors = 0

    def parse_from_file(self, model):
        with open(model, "rb") as file:
            return self.parse(file.read(), model)

    def parse(self, model, path=None):
        self._network.model, self._network.path = model, path
        try:
            _session(model, path)
        except Exception as error:
            self._error, self.num_errors = str(error), 1
        return self.num_errors == 0

    def get_error(self, index):
        return SimpleNamespace(desc=lambda: self._error)


class Config:
    def __init__(self):
        self.tf32, self.profiles = True, []

    def clear_flag(self, flag):
        assert flag == BuilderFlag.TF32
        self.tf32 = False

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Shapes:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        self.shapes[input] = [min, opt, max]


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, serialized_engine):
        try:
            return Engine(*pickle.loads(serialized_engine))
        except pickle.UnpicklingError:
            return None


class Engine:
    def __init__(self, model, path, name, shapes):
        self.session, self.input, self.shapes = _session(model, path), name, {name: shapes}
        self.tensors = {each.name: each for each in (*self.session.get_outputs(), *self.session.get_inputs())}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == self.input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return _TYPES[self.tensors[name].type]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.shape, self.addresses = engine, None, {}

    def set_input_shape(self, name, shape):
        least, _, most = self.engine.shapes[name]
        fits = shape[1:] == least[1:] and least[0] <= shape[0] <= most[0]
        self.shape = shape if fits else self.shape
        return fits

    def get_tensor_shape(self, name):
        shape = self.engine.tensors[name].shape
        return (self.shape[0], *shape[1:])

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return name in self.engine.tensors

    def execute_async_v3(self, stream_handle):
        engine, shape = self.engine, self.shape
        if set(self.addresses) != set(engine.tensors):
            return False

        def work():
            dtype = nptype(engine.get_tensor_dtype(engine.input))
            raw = ctypes.string_at(self.addresses[engine.input], prod(shape) * np.dtype(dtype).itemsize)
            names = [name for name in engine.tensors if name != engine.input]
            found = engine.session.run(names, {engine.input: np.frombuffer(raw, dtype).reshape(shape)})
            for name, array in zip(names, found, strict=True):
                ctypes.memmove(self.addresses[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)

        cuda.enqueue(stream_handle, work)
        return True


def nptype(dtype):
    return np.dtype(dtype).type


def _session(model, path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    folder = str(path).rpartition("/")[0]
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
