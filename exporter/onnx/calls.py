"""Calls that are put into a traced graph."""

from __future__ import annotations

from typing import Any

from torch.fx import Node
from torch.fx.node import map_arg


def call(user: Node, target: Any, *args: Any, **kwargs: Any) -> Node:  # noqa: ANN401 - torch's
    """Put a call before a node, which belongs where that one does; what it gives is asked of torch, of fake tensors."""
    with user.graph.inserting_before(user):
        made = user.graph.call_function(target, args, kwargs)
    given: Any = map_arg((args, kwargs), lambda each: each.meta["val"])
    made.meta = {**user.meta, "val": target(*given[0], **given[1])}
    return made
