"""Arguments by which pipelines have a language model write prompts anew: off in a bundle, which draws what it is asked for."""

from __future__ import annotations

import inspect
from typing import Any

#: Such arguments. Of `use_NAME` the component NAME is the language model, and NAME_… what belongs to it.
SWITCHES = ("use_pe", "enable_prompt_rewrite")


def of(pipeline: Any) -> dict[str, list[str]]:  # noqa: ANN401 - a pipeline of diffusers
    """Those of its call that do something, and the components that do nothing else."""
    takes = inspect.signature(inspect.unwrap(type(pipeline).__call__)).parameters
    found: dict[str, list[str]] = {}
    for switch in (each for each in SWITCHES if each in takes):
        name = switch.removeprefix("use_")
        if pipeline.components.get(name, pipeline) is not None:
            found[switch] = [each for each in pipeline.components if each == name or each.startswith(f"{name}_")]
    return found
