"""Pipelines that draw nothing without somebody who looks at prompts and pictures: no bundle has one, and none goes around it."""

from __future__ import annotations

import inspect
import re
from typing import Any

from engines.errors import UnsupportedError

#: What such a component is called.
_GUARD = "safety_checker"


def refuse(kind: Any) -> None:  # noqa: ANN401 - a class of diffusers'
    """Raise UnsupportedError for a pipeline whose call ends where nobody looks, as Cosmos' licence has it."""
    call = inspect.getsource(inspect.unwrap(kind.__call__))
    if not re.search(rf"if self\.{_GUARD} is None:\s+raise\b", call):
        return
    raise UnsupportedError(
        f"{kind.__name__} draws nothing without its {_GUARD}, which looks at every prompt and every picture.\n"
        "  A bundle has none, so that what it draws would go unseen, and the model's licence asks for one: it is not built."
    )
