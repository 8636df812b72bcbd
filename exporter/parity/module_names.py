"""Which module of the source a node of a graph comes from."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import onnx_ir as ir

#: Modules from the outermost in, and the step, as torch's exporter writes them; graph passes make nodes that have none.
_SCOPES = "pkg.torch.onnx.name_scopes"
#: What is of no module of the source, but of what wraps it: scaling, guidance, time units.
WRAPPER = "the wrapper"
#: What a graph pass adds to the name of a weight that it turned.
_TURNED = ".T"
#: How far from a node its module's name is looked for.
_REACH = 4


def module_of(nodes: Sequence[ir.Node]) -> str:
    """The module that nodes belong to: as they say, as their weights are named, or that of their nearest neighbours.

    Empty where none of that tells anything.
    """
    near = list(nodes)
    for _ in range(_REACH):
        if found := [name for node in near if (name := _own(node))]:
            return max(found, key=lambda name: (found.count(name), name.count(".")))
        made = [user for node in near for value in node.outputs for user in value.consumers()]
        read = [maker for node in near for value in node.inputs if value is not None and (maker := value.producer())]
        near = list(dict.fromkeys([*near, *made, *read]))
    return ""


def _own(node: ir.Node) -> str:
    """What a node itself says of its module."""
    weights = [str(value.name) for value in node.inputs if value is not None and value.is_initializer()]
    if _SCOPES in node.metadata_props:
        *modules, _step = ast.literal_eval(node.metadata_props[_SCOPES])
        return str(modules[-1] if modules else "") or WRAPPER
    dotted = [name.removesuffix(_TURNED).rpartition(".")[0] for name in weights]
    return next((name for name in dotted if name), "")
