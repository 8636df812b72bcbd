"""Which operators a picture's time goes to: a call of each network of a bundle, as its library ran it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines import plugins
from engines.backends import OperatorRun
from engines.pipeline import Pipeline
from engines.sessions import Network
from engines.strict import Frozen


@dataclass(frozen=True)
class OperatorKind:
    """All steps of a call that are one operator, run by one kernel: how many, and their seconds together."""

    operator: str
    kernel: str
    times: int
    seconds: float


class PartOperators(Frozen):
    """One network: the backend that ran it, how often a picture calls it, and every step of one call.

    There are no steps where the library does not tell them.
    """

    part: str
    backend: str
    calls: int
    steps: tuple[OperatorRun, ...]

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step.seconds for step in self.steps)

    def kinds(self) -> list[OperatorKind]:
        """Steps by operator and kernel, those that took longest first."""
        found: dict[tuple[str, str], list[float]] = {}
        for step in self.steps:
            found.setdefault((step.operator, step.kernel), []).append(step.seconds)
        kinds = [OperatorKind(*names, len(seconds), sum(seconds)) for names, seconds in found.items()]
        return sorted(kinds, key=lambda kind: -kind.seconds)


def operators(
    path: Path,
    prompt: str,
    wishes: Mapping[str, Any],
    chosen: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[PartOperators, ...]:
    """Draw one picture, and run every network's last call once more where its library tells of each step.

    Args:
        path: the bundle.
        chosen: the backend; by default the one that the bundle opens with.
        prompt: what is drawn.
        wishes: arguments of `Pipeline.generate`, such as the steps.
        say: told what goes on.

    Raises:
        UnsupportedError, MissingDependency, BundleError: it cannot be drawn.

    """
    backends, calls, fed = dict[str, str](), dict[str, int](), dict[str, dict[str, np.ndarray]]()

    def wrap(part: str, backend: str, network: Network) -> Network:
        def call(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            backends[part], calls[part] = backend, calls.get(part, 0) + 1
            fed[part] = {name: array.copy() for name, array in inputs.items()}
            return network(inputs)

        return call

    with Pipeline.open(path, chosen, wrap=wrap) as pipeline:
        pipeline.generate(prompt, seed=0, **wishes)
        bundle = pipeline.bundle
    found: list[PartOperators] = []
    for part, inputs in fed.items():
        entry, backend = bundle.manifest.parts[part], backends[part]
        say(f"looking into {part} on {backend}")
        opener = plugins.load("backends", backend).model_validate(entry.engines[backend].options)
        steps = opener.profile([bundle.path(file) for file in entry.engines[backend].files], entry.signature, inputs)
        found.append(PartOperators(part=part, backend=backend, calls=calls[part], steps=tuple(steps)))
    return tuple(found)
