"""Networks that are told more than the time of their step, such as the next step's where they were taught mean velocities."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from engines.errors import UnsupportedError

#: What arguments of networks are called that are times.
_TIME = "timestep"


def refused(pipeline: Any, name: str) -> ExitStack:  # noqa: ANN401 - a pipeline of diffusers
    """Until it is closed, raise UnsupportedError where a network of a pipeline of that name is told a second time."""

    def saw(_network: object, _args: object, given: dict[str, Any]) -> None:
        times = [each for each, value in given.items() if _TIME in each and isinstance(value, Tensor) and value.ndim == 1]
        if len(times) > 1:
            raise UnsupportedError(
                f"{name} tells its network {' and '.join(times)}: beside the time of a step that of another one, and a bundle's "
                "step knows its own.\n  This is not built."
            )

    stack = ExitStack()
    for network in (each for each in pipeline.components.values() if isinstance(each, nn.Module)):
        stack.callback(network.register_forward_pre_hook(saw, with_kwargs=True).remove)
    return stack
