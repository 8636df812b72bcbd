"""The two sides of a comparison inside a part: what a value of its graph should be, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from engines import plugins
from engines.backends import Backend
from exporter.parity.cut import Subgraph, cut
from exporter.parity.layers import Layers
from exporter.parity.search import agreement

#: Bytes of values that are kept, so that they are not computed again for every try.
_KEPT = 2**30

#: A cut → value of the graph that was cut → what it is.
Play = Callable[[Subgraph], dict[str, np.ndarray]]


class SourceNetwork(Protocol):
    """The source of a part, which is run and looked into."""

    @property
    def modules(self) -> Mapping[str, str]:
        """Values that the source has as well, by the names that the part's graph has for them → the module that makes each."""
        ...

    def __call__(self, inputs: Mapping[str, np.ndarray], wanted: Collection[str]) -> dict[str, np.ndarray]:
        """Run it, and return what is wanted of the values that it has."""
        ...


def reference() -> Play:
    """Run a graph as it is written: in the reference runtime, with its own optimisations off."""
    backend = plugins.load("backends", "onnxruntime")(graph_optimization="none")

    def play(part: Subgraph) -> dict[str, np.ndarray]:
        with TemporaryDirectory() as folder:
            file = part.save(Path(folder) / "graph.onnx")
            files = [each for each in (file, file.with_name(f"{file.name}.data")) if each.exists()]
            return _answers(part, backend, files, part.signature())

    return play


def engine(backend: Backend) -> Play:
    """Build an engine of a graph, and run that."""
    written = reference()

    def play(part: Subgraph) -> dict[str, np.ndarray]:
        shapes = {part.ports[name]: array.shape for name, array in written(part).items()}
        signature = part.signature(shapes)
        with TemporaryDirectory() as folder:
            file = part.save(Path(folder) / "graph.onnx")
            return _answers(part, backend, backend.build(file, signature, Path(folder)), signature)

    return play


def _answers(part: Subgraph, backend: Any, files: Sequence[Path], signature: Any) -> dict[str, np.ndarray]:  # noqa: ANN401
    with backend.open(files, signature) as opened:
        got = opened(dict(part.feeds))
    return {name: got[port] for name, port in part.ports.items()}


@dataclass
class Sides:
    """One recorded call of a part, on both sides.

    Attributes:
        layers: the part's graph.
        inputs: what the call was fed with.
        right: names of values → what they should be.
        play: what answers, and may be wrong.
        seen: names of values → what they are in the call, where that is known from elsewhere than `play`.

    """

    layers: Layers
    inputs: Mapping[str, np.ndarray]
    right: Callable[[Sequence[str]], Mapping[str, np.ndarray]]
    play: Play
    seen: Callable[[Sequence[str]], Mapping[str, np.ndarray]] | None = None
    _known: dict[str, np.ndarray] = field(default_factory=dict)

    def want(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """What values should be."""
        if sum(array.nbytes for array in self._known.values()) > _KEPT:
            self._known.clear()
        if missing := [name for name in names if name not in self._known and name not in self.inputs]:
            self._known |= self.right(missing)
        return {name: self._known[name] if name in self._known else self.inputs[name] for name in names}

    def measure(self, names: Sequence[str]) -> dict[str, float]:
        """How far values are from what they should be, PSNR in dB, where the whole graph is fed with the call's inputs."""
        got = self.seen(names) if self.seen else self.play(cut(self.layers.model, self.inputs, names))
        want = self.want(names)
        return {name: agreement(got[name], want[name]) for name in names}

    def alone(self, inside: Sequence[str]) -> float:
        """How far the last of some values is off, where a graph that makes only these is fed with what is right."""
        part, want, got = self.replay(inside)
        return min(agreement(got[name], want[name]) for name in part.ports)

    def replay(self, inside: Sequence[str]) -> tuple[Subgraph, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The graph that makes only these values, what its end should be, and what it is."""
        end = inside[-1]
        part = cut(self.layers.model, self.want(self.layers.starts(inside)), [end])
        return part, self.want([end]), self.play(part)


def of_graph(layers: Layers, inputs: Mapping[str, np.ndarray]) -> Callable[[Sequence[str]], Mapping[str, np.ndarray]]:
    """What the graph itself says of values: what an engine is held to."""
    play = reference()
    return lambda names: play(cut(layers.model, inputs, names))
