"""What graph passes ask of a node while they look for a pattern."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def made_by(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that makes a value, if it is that operator of ONNX itself."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator and node.domain == "" else None


def permutation(node: ir.Node | None) -> Sequence[int]:
    """The order of axes of a Transpose; empty where there is none, or it is not written."""
    found = node.attributes.get("perm") if node is not None else None
    return tuple(found.as_ints()) if found is not None else ()


def only_user(value: ir.Value, operator: str) -> ir.Node | None:
    """The one node that reads a value, if it is the only one and that operator of ONNX itself."""
    users = [user for user, _ in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == operator and users[0].domain == "" else None
