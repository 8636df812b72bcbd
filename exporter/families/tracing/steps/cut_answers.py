"""What a traced pipeline's first blocks alone answer at the steps of a run, on what earlier steps left: each step's own output.

The pipeline mixes its branches in its own code, so a step is played again as the parts of a bundle play it: the whole one, which
leaves a deep feature for every depth, and the shallow one of each depth, on the features of the steps before.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from exporter.families.tracing.steps.cached_steps import CutFamily

if TYPE_CHECKING:
    from torch import nn

    from exporter.families import Saw


class SearchedFamily(CutFamily, Protocol):
    """A family whose steps can be played at any depth of its cut."""

    def played(self, part: str, pipeline: Any, depth: int | None = None) -> nn.Module:  # noqa: ANN401 - diffusers'
        """A part over a pipeline that has its networks; of a denoiser, cut at that depth."""
        ...


@dataclass
class NotedSteps:
    """What the steps of one run took.

    Attributes:
        values: what is the same at all of them, by port, (1, …).
        steps: latent (1, C, H, W) and timestep (1,) of each.

    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    steps: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @contextmanager
    def of(self, scheduler: Any, values: Mapping[str, Tensor], unpacked: Any) -> Iterator[None]:  # noqa: ANN401 - diffusers'
        """Within it, every call of the scheduler's `step` is noted; `unpacked` makes the latent of what a step is given."""
        self.values = values
        step, before = scheduler.step, vars(scheduler).get("step")

        @functools.wraps(step)  # pipelines look at its arguments
        def stepped(output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
            self.steps.append((unpacked(scaled.float()).clone(), torch.as_tensor(timestep).flatten()[:1].float()))
            return step(output, timestep, sample, *args, **kwargs)

        scheduler.step = stepped
        try:
            yield
        finally:
            if before is None:
                del scheduler.step
            else:
                scheduler.step = before


def compared(
    family: SearchedFamily,
    pipeline: Any,  # noqa: ANN401 - diffusers'
    noted: NotedSteps,
    depths: Sequence[int],
    reach: int,
    saw: Saw,
) -> None:
    """Tell how far the shallow answers of a run are off from the whole ones.

    Args:
        family: that knows where its network is cut.
        pipeline: of diffusers, which has its networks.
        noted: the run.
        depths: of the shallow steps.
        reach: how many steps back what was left is tried.
        saw: told of every answer how far it is off, of all branches as the pipeline mixes them.

    """
    (name,), (cut,) = ([part for part, role in family.roles.items() if role == wanted] for wanted in ("denoiser", "shallow"))
    network, blocks = getattr(pipeline, name), family.blocks
    ports = [port.name for port in family.signature(name).inputs]
    whole = family.played(name, pipeline)
    shallow = {depth: family.played(cut, pipeline, depth) for depth in depths}
    earlier: deque[tuple[int, Mapping[int, Tensor]]] = deque(maxlen=reach)
    with torch.no_grad():
        for call, (latent, timestep) in enumerate(noted.steps):
            values = {**noted.values, "latent": latent, "timestep": timestep}
            given = [values[port] for port in ports]
            with ExitStack() as stack:
                kept = {depth: stack.enter_context(blocks.whole(network, depth, latent.shape[2:])) for depth in depths}
                answer = whole(*given)[0]
            for origin, features in earlier:
                for depth, deep in features.items():
                    error = shallow[depth](*given, deep) - answer
                    saw(depth, origin, call, error.flatten(1).numpy().astype(np.float32))
            earlier.append((call, {depth: blocks.as_port(each, latent) for depth, each in kept.items()}))
