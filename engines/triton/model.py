"""The pipeline as a model of Triton's Python backend: its networks are models of the same server, called through it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from engines.signature import Signature
from engines.triton import config, repository

#: Wishes that are a list of several, however many there are.
_LISTS = ("negative_prompt", "prompt_2", "negative_prompt_2", "seed", "guidance_scale")


class TritonPythonModel:
    """What the server makes one of for each instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the bundle that lies beside the program; the server tells where, and what this model is called."""
        self._server = importlib.import_module("triton_python_backend_utils")  # only the server has it
        bundle = Bundle.open(Path(args["model_repository"]) / args["model_version"] / "bundle")
        parts = bundle.manifest.running()
        networks = {
            name: self._network(repository.network(bundle.manifest.name, name), part.signature) for name, part in parts.items()
        }
        self._pipeline = Pipeline(bundle, networks, "triton")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request with its pictures, or with what is wrong with it."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 - the server's
        server = self._server
        given: dict[str, Any] = {}
        for name in ("prompt", *config.WISHES):
            tensor = server.get_input_tensor_by_name(request, name)
            if tensor is not None:
                given[name] = tensor.as_numpy()
        try:
            pictures = self._pipeline.generate(_texts(given.pop("prompt")), **wishes(given))
        except UnsupportedError as error:
            return server.InferenceResponse(error=server.TritonError(str(error), server.TritonError.INVALID_ARG))
        images = np.stack([np.asarray(picture) for picture in pictures])
        infos = np.array([json.dumps(picture.info).encode() for picture in pictures], object)
        return server.InferenceResponse(output_tensors=[server.Tensor("images", images), server.Tensor("info", infos)])

    def _network(self, name: str, signature: Signature) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        """One of the server's other models, which joins the batches of all that call it."""
        server, outputs = self._server, [port.name for port in signature.outputs]

        def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            # A number for each item has an axis of one length, since the server knows no tensor without one.
            tensors = [
                server.Tensor(port.name, inputs[port.name].reshape(-1, 1) if len(port.shape) == 1 else inputs[port.name])
                for port in signature.inputs
            ]
            here = server.PreferredMemory(server.TRITONSERVER_MEMORY_CPU)  # whichever device the network is on
            response = server.InferenceRequest(
                model_name=name, requested_output_names=outputs, inputs=tensors, preferred_memory=here
            ).exec()
            if response.has_error():
                raise RuntimeError(f"{name}: {response.error().message()}")
            return {output: server.get_output_tensor_by_name(response, output).as_numpy() for output in outputs}

        return run


def wishes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Pipeline.generate` of what a request holds, arrays by name."""
    found: dict[str, Any] = {}
    for name, array in given.items():
        if name in {"image", "mask"}:
            found[name] = Image.fromarray(array)
            continue
        values = _texts(array) if config.WISHES[name][0] == "TYPE_STRING" else array.reshape(-1).tolist()
        found[name] = values if name in _LISTS else values[0]
    return found


def _texts(array: np.ndarray) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in array.reshape(-1)]
