"""Triton Inference Server as a repository sees it: reads every config by Triton's own schema, and loads models as it does."""

import importlib.util
import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

pytest.importorskip("tritonclient", reason="the Makefile installs it without its dependencies, for its schema alone")

TYPES = {
    "TYPE_FP32": np.float32,
    "TYPE_INT64": np.int64,
    "TYPE_INT32": np.int32,
    "TYPE_UINT8": np.uint8,
    "TYPE_STRING": np.object_,
}


def schema():
    """Triton's `model_config.proto`, compiled, as its client brings it; importing the client whole would ask for gRPC."""
    file = metadata.distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tensor:
    def __init__(self, name, array):
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class TritonError(Exception):
    INVALID_ARG = 3

    def __init__(self, text, code=0):
        super().__init__(text)
        self._text, self.code = text, code

    def message(self):
        return self._text


class Server:
    """Holds a repository's models until it is closed.

    Attributes:
        calls: names of the models that were called, with the length of their batch.

    """

    def __init__(self, repository, monkeypatch):
        self.repository, self.calls = repository, []
        messages = schema()
        self.configs = {}
        for file in sorted(repository.glob("*/config.pbtxt")):
            self.configs[file.parent.name] = text_format.Parse(file.read_text(), messages.ModelConfig())
        self.types = {name: messages.DataType.Value(name) for name in TYPES}
        self._sessions = {}
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", self._utils())

    def _utils(self):
        module = ModuleType("triton_python_backend_utils")
        module.Tensor, module.TritonError = Tensor, TritonError
        module.TRITONSERVER_MEMORY_CPU = 0
        module.PreferredMemory = lambda memory: SimpleNamespace(memory=memory)
        module.InferenceRequest = lambda **asked: SimpleNamespace(exec=lambda: self.call(**asked))
        module.InferenceResponse = lambda output_tensors=(), error=None: response(output_tensors, error)
        module.get_input_tensor_by_name = lambda request, name: request.get(name)
        module.get_output_tensor_by_name = lambda answer, name: next(one for one in answer.tensors if one.name() == name)
        return module

    def load(self, name):
        """The Python backend: the class TritonPythonModel of `<repository>/<name>/1/model.py`, initialised."""
        spec = importlib.util.spec_from_file_location("model", self.repository / name / "1" / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize({"model_name": name, "model_repository": str(self.repository / name), "model_version": "1"})
        return model

    def call(self, model_name, requested_output_names, inputs, preferred_memory):
        """ONNX Runtime's backend: what goes in is checked against the config, reshaped, and run."""
        assert preferred_memory.memory == 0
        config = self.configs[model_name]
        if config.backend != "onnxruntime":
            return response(error=TritonError(f"no backend {config.backend} here"))
        ports = {port.name: port for port in config.input}
        assert set(ports) == {tensor.name() for tensor in inputs}
        fed = {}
        for tensor in inputs:
            port, array = ports[tensor.name()], tensor.as_numpy()
            self.fits(port, array.shape[1:], array.dtype)
            assert 1 <= len(array) <= config.max_batch_size
            fed[port.name] = array.reshape(len(array), *port.reshape.shape) if port.HasField("reshape") else array
        self.calls.append((model_name, len(array)))
        if model_name not in self._sessions:
            file = self.repository / model_name / "1" / config.default_model_filename
            self._sessions[model_name] = onnxruntime.InferenceSession(file)
        made = dict(zip(requested_output_names, self._sessions[model_name].run(requested_output_names, fed), strict=True))
        for port in config.output:
            self.fits(port, made[port.name].shape[1:], made[port.name].dtype)
        return response([Tensor(name, array) for name, array in made.items()])

    def fits(self, port, shape, dtype):
        (kind,) = (kind for kind, number in self.types.items() if number == port.data_type)
        assert np.dtype(TYPES[kind]) == dtype, port.name
        assert len(shape) == len(port.dims), port.name
        assert all(dim in (-1, length) for dim, length in zip(port.dims, shape, strict=True)), port.name


def response(tensors=(), error=None):
    return SimpleNamespace(tensors=tensors, has_error=lambda: error is not None, error=lambda: error)
