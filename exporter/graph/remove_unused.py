"""Drop what no output depends on, and what the exporter left for debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    IdentityEliminationPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from exporter.graph import placed

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["remove_unused"]
#: Modules that a node belongs to, from the outermost in, as torch's exporter writes it; `t2iexport debug` names them.
_SCOPES = "pkg.torch.onnx.name_scopes"


@placed(after=["deduplicate", "transpose"])  # which leave the unused
def remove_unused(model: ir.Model) -> ir.Model:
    """Remove dead nodes, functions, operator sets, identities, and metadata (stack traces with this machine's paths).

    Nodes keep the names of the modules that they come from, which say nothing but what the source model's own files say.
    """
    passes = Sequential(
        IdentityEliminationPass(),
        RemoveUnusedNodesPass(),
        RemoveUnusedFunctionsPass(),
        RemoveUnusedOpsetsPass(),
        ClearMetadataAndDocStringPass(),
    )
    scopes = {node: node.metadata_props[_SCOPES] for node in model.graph if _SCOPES in node.metadata_props}
    cleared = passes(model).model
    for node in cleared.graph:
        if node in scopes:
            node.metadata_props[_SCOPES] = scopes[node]
    return cleared
