"""Who is measured: engines by name, and diffusers' own networks in torch, each as one function that ends when the GPU has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engines import plugins
from engines.backends import Backend
from engines.signature import Signature

Call = Callable[[], np.ndarray]
_CUDA = {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


@dataclass(frozen=True)
class Kind:
    """An engine to measure: a backend with options, and the graph passes that its graph goes through."""

    backend: str
    options: Mapping[str, Any] = field(default_factory=dict)
    passes: tuple[str, ...] = ()

    def make(self) -> Backend:
        """The backend."""
        return plugins.load("backends", self.backend).model_validate(dict(self.options))


KINDS: Mapping[str, Kind] = {
    "onnxruntime": Kind("onnxruntime"),
    "openvino": Kind("openvino"),
    "cuda-plain": Kind("onnxruntime", _CUDA),
    "cuda": Kind("onnxruntime", _CUDA, ("attend",)),
    "cuda-graph": Kind("onnxruntime", {**_CUDA, "cuda_graph": True}, ("attend",)),
    "cuda-nhwc": Kind("onnxruntime", {**_CUDA, "nhwc": True}, ("attend", "group_norm")),
    "cuda-nhwc-graph": Kind("onnxruntime", {**_CUDA, "nhwc": True, "cuda_graph": True}, ("attend", "group_norm")),
    "ort-tensorrt": Kind("onnxruntime", {"providers": ["TensorrtExecutionProvider", *_CUDA["providers"]]}),
    "tensorrt_rtx": Kind("tensorrt_rtx"),
    "tensorrt": Kind("tensorrt"),
}


def feed(signature: Signature, batch: int = 1) -> dict[str, np.ndarray]:
    """Inputs of typical sizes: standard normal numbers, time 500, guidance 7.5; nobody can write to them."""
    rng = np.random.default_rng(0)
    sizes = {name: allowed.typical for name, allowed in signature.dims.items()} | {"batch": batch}
    fixed = {"timestep": 500.0, "guidance_scale": 7.5}
    found = {}
    for port in signature.inputs:
        shape = signature.shape(port, {name: sizes[name] for name in sizes})
        array = np.full(shape, fixed[port.name], np.float32) if port.name in fixed else rng.standard_normal(shape, np.float32)
        array.flags.writeable = port.name in {"latent", "timestep", "guidance_scale"}
        found[port.name] = array
    return found


class Torch:
    """diffusers' UNet or VAE decoder as its pipeline calls it: tensors stay on the device, guidance is one batch of two.

    Eager and compiled run channels last, with cuDNN's own search; a call ends with a synchronization.
    """

    def __init__(self, network: Any, inputs: Mapping[str, np.ndarray], factor: int) -> None:  # noqa: ANN401 - diffusers'
        self.network = network
        parameter = next(network.parameters())
        self.device, dtype = parameter.device, parameter.dtype
        self._dtype = dtype
        self.latent = torch.from_numpy(np.array(inputs["latent"])).to(self.device, dtype)
        self.scale = float(inputs["guidance_scale"][0]) if "guidance_scale" in inputs else None
        if "timestep" not in inputs:
            return
        states = {name: self._flat(inputs[name]) for name in inputs if "embeds" in name}
        pooled = states.pop("pooled_prompt_embeds", None)
        self._states = torch.cat(list(states.values()), dim=-1)
        self._added = None
        if pooled is not None:
            height, width = (side * factor for side in self.latent.shape[2:])
            ids = torch.tensor([[height, width, 0, 0, height, width]], device=self.device, dtype=dtype)
            self._added = {"text_embeds": pooled, "time_ids": ids.repeat(len(pooled), 1)}
        self.time = torch.tensor(float(inputs["timestep"][0]), device=self.device)

    def _flat(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).flatten(0, 1).to(self.device, self._dtype)

    def denoise(self, latent: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        """One call of the UNet, guided where there are two branches."""
        branches = len(self._states) // len(latent)
        # diffusers has the negative branch of all pictures first; for one picture the order is the same as ours.
        output = self.network(
            torch.cat([latent] * branches), moment, self._states, added_cond_kwargs=self._added, return_dict=False
        )[0]
        if branches == 1:
            return output
        negative, positive = output.chunk(2)
        return negative + self.scale * (positive - negative)

    @torch.inference_mode()
    def call(self) -> torch.Tensor:
        """One call on the inputs, to the end; the result stays on the device until then, as a pipeline keeps it."""
        found = self.denoise(self.latent, self.time)
        self.synchronize()
        return found

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent → image in [0, 1], channels last, as the decoder's graph does; for callers that want no gradients."""
        image = self.network.decode(latent / self.network.config.scaling_factor, return_dict=False)[0]
        return (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    @torch.inference_mode()
    def decoded(self) -> torch.Tensor:
        """One picture, to the end."""
        found = self.decode(self.latent)
        self.synchronize()
        return found

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Graphed(Torch):
    """The same as one CUDA graph: what the host does between kernels is done once."""

    def __init__(self, other: Torch) -> None:
        vars(self).update(vars(other))
        self._runs = dict[str, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]]()
        self._other = other

    def denoise(self, latent: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        """As the other does."""
        return self._replay("denoise", self._other.denoise, latent, moment)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """As the other does."""
        return self._replay("decode", self._other.decode, latent)

    def _replay(self, name: str, function: Callable[..., torch.Tensor], *given: torch.Tensor) -> torch.Tensor:
        if name not in self._runs:
            kept, stream = [tensor.clone() for tensor in given], torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    function(*kept)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                made = function(*kept)
            self._runs[name] = graph, kept, made
        graph, kept, made = self._runs[name]
        for tensor, new in zip(kept, given, strict=True):
            tensor.copy_(new)
        graph.replay()
        return made.clone()


def host(found: Any) -> np.ndarray:  # noqa: ANN401 - a tensor, or an array already
    """The numbers, float32, in host memory."""
    return found.float().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found, np.float32)


def snr(got: np.ndarray, right: np.ndarray) -> float:
    """Signal to noise, dB; nan where a number is not finite."""
    error = np.square(got.astype(np.float64) - right).mean()
    return float(10 * np.log10(np.square(right.astype(np.float64)).mean() / max(error, 1e-30)))


def race(calls: Mapping[str, Call], seconds: float, most: int, *, least: int = 3) -> dict[str, list[float]]:
    """Milliseconds of every call, in rounds: each calls everybody once, another one first each time.

    It ends after `most` rounds, or when the time is up and `least` rounds are done.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    names, start = list(calls), time.perf_counter()
    for number in range(most):
        if number >= least and time.perf_counter() - start > seconds:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            calls[name]()
            times[name].append((time.perf_counter() - began) * 1e3)
    return times


def told(times: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Median and 95th percentile in ms, rounds, and how many times as fast as the baseline, as the median over rounds."""
    found = {}
    for name, each in times.items():
        ordered = sorted(each)
        found[name] = {
            "ms": round(statistics.median(each), 3),
            "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
            "rounds": len(each),
        }
        if baseline in times:
            ratios = [right / own for right, own in zip(times[baseline], each, strict=True)]
            found[name]["speedup"] = round(statistics.median(ratios), 3)
    return found
