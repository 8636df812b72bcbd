"""Part → ONNX: torch.export with derived dynamic dimensions, graph passes in memory, saved once, checked."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
import torch
from torch._guards import detect_fake_mode

from engines.errors import UnsupportedError
from exporter import graph
from exporter.onnx.capture import traced
from exporter.onnx.rooted_lengths import root
from exporter.onnx.spelling import spell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.signature import Dim, Port, Signature
    from exporter.onnx.lora_inputs import LoraGraphPass
    from exporter.part import Part


@dataclass(frozen=True)
class ExportedModel:
    """A graph in memory, and how many nodes it had before the graph passes."""

    model: ir.Model
    nodes_exported: int

    @property
    def nodes(self) -> int:
        """Nodes after the graph passes."""
        return len(self.model.graph)


def export(
    part: Part, opset: int, *, processor: bool = False, fused: Sequence[str] = (), lora: LoraGraphPass | None = None
) -> ExportedModel:
    """Export a part with every named dimension dynamic within its range, for any engine or for those on a processor.

    `fused` are further graph passes, into operators that the graph's engines all have; `lora` gives layers LoRAs as inputs.

    A dimension whose range is one length becomes static. Multiples are derived dimensions (`4*h`), so that a length that the
    network cannot take is not in the graph's type either.

    Raises:
        UnsupportedError: torch cannot express the module; the text carries the exporter's last words.

    """
    from torch._dynamo.exc import UserError  # noqa: PLC0415 - torch.export's only public face, and slow to load

    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # "torchvision is not installed"
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own internals; what matters to a user is measured by the checks.
        warnings.simplefilter("ignore")
        try:
            program = _translated(traced(part), part.signature, opset)
        except (torch.onnx.OnnxExporterError, UserError) as error:
            raise UnsupportedError(f"{part.name} cannot be exported to ONNX operator set {opset}:\n  {_last(error)}") from error
    model = program.model
    before = len(model.graph)
    for graph_pass in graph.order(processor=processor, fused=fused, more={"lora": lora} if lora else {}):
        model = graph_pass(model)
    _declare(model, lora.signature(part.signature) if lora else part.signature)
    return ExportedModel(model, before)


#: How lines of torch begin that say where to read more.
_ADVICE = ("Use tlparse", "(https://", "(Refer to")


def _last(error: Exception) -> str:
    """The exporter's last words; of lengths that the module's code fixes, which, and what to write."""
    lines = str(error).strip().splitlines()
    if fixed := {found[0] for line in lines if (found := re.search(r"(?:\d+\*)?[a-z_]+(?:_\d+)?(?= as dynamic)", line))}:
        return (
            f"its code takes {', '.join(sorted(fixed))} for one number, and the recipe asks for a range.\n"
            "  Give one size and batch: each of height, width and batch the same three times."
        )
    if causes := re.findall(r"^<class '(?:\w+\.)*(\w+)'>: (.*)$", str(error).partition("Exception summary")[2], re.MULTILINE):
        return ": ".join(causes[0])  # the first of those that led to each other
    return "\n  ".join([line for line in lines if line.strip() and not line.startswith(_ADVICE)][-3:])


class _Decomposed(torch.export.ExportedProgram):
    """A program that the translation takes as it stands."""

    def run_decompositions(self, *_: object, **__: object) -> torch.export.ExportedProgram:
        """Return itself: nothing is left to do."""
        return self


def _translated(program: torch.export.ExportedProgram, signature: Signature, opset: int) -> torch.onnx.ONNXProgram:
    """Spare the translation its decompositions, which trace the network twice more and take longer than all the rest.

    Nearly every operator of these networks has an ONNX form, once some are spelled in another way. Anything without one,
    in-place operators among them, makes the translation refuse; then torch has to decompose.
    """
    fake: Any = detect_fake_mode([node.meta["val"] for node in program.graph.find_nodes(op="placeholder")])
    with fake:
        _prune(program.graph)
        root(program.graph)
        _leave_out(program.graph)
        spell(program.graph)
    # Decomposing counts them: weights of a side of shapes alone are gone.
    left = {node.name for node in program.graph.find_nodes(op="placeholder")}
    specs = program.graph_signature.input_specs
    for spec in [spec for spec in specs if spec.arg.name not in left]:
        specs.remove(spec)
        program.constants.pop(str(spec.target), None)
    try:
        program.__class__ = _Decomposed
        # Numbers that are computed of lengths: a translation in vain leaves them behind, and decomposing would look for them.
        with fake.shape_env.ignore_fresh_unbacked_symbols():
            return _translate(program, signature, opset)
    except torch.onnx.OnnxExporterError:
        program.__class__ = torch.export.ExportedProgram
        return _translate(program, signature, opset)


def _prune(graph: torch.fx.Graph) -> None:
    """Take out what no output is made of: a part that ends before its pipeline leaves the rest of the trace behind.

    There torch's own graph forgets users of what is returned, and asserts of what types it had.
    """
    for node in graph.nodes:
        for each in node.all_input_nodes:
            each.users.setdefault(node)
    told = torch.ops.aten._assert_tensor_metadata.default  # noqa: SLF001 - its name
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or (node.is_impure() and node.target is not told))


def _leave_out(graph: torch.fx.Graph) -> None:
    """Erase what nothing is made of, such as a side that has shapes alone, and what is asserted of tensors."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):  # noqa: SLF001 - its name
        graph.erase_node(node)
    for node in reversed(graph.nodes):  # what is written in place is no dead code to torch
        if not node.users and getattr(node.meta.get("val"), "is_meta", False):
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _translate(program: torch.export.ExportedProgram, signature: Signature, opset: int) -> torch.onnx.ONNXProgram:
    translated = torch.onnx.export(
        program,
        (),
        input_names=[port.name for port in signature.inputs],
        output_names=[port.name for port in signature.outputs],
        opset_version=opset,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    if translated is None:
        raise RuntimeError("torch.onnx.export returned no program although no file was named")
    return translated


def save(exported: ExportedModel, path: Path) -> tuple[Path, ...]:
    """Write the graph and, in one file beside it, its weights; then run the full ONNX check on the file.

    Raises:
        UnsupportedError: the exporter produced an invalid model.

    """
    data = path.with_name(f"{path.name}.data")
    ir.save(exported.model, path, external_data=data.name)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedError(f"{path.name}: the exported graph is not valid ONNX:\n  {error}") from error
    return (path, data) if data.exists() else (path,)


def _declare(model: ir.Model, signature: Signature) -> None:
    """Give the graph's ports the signature's dimension names, and drop shapes in the exporter's own symbols."""
    ports: dict[str, Port] = {port.name: port for port in (*signature.inputs, *signature.outputs)}
    fixed = {name: allowed.min for name, allowed in signature.dims.items() if allowed.min == allowed.max}
    boundary = {*model.graph.inputs, *model.graph.outputs}
    for value in boundary:
        shape = [_declared(dim, fixed) for dim in ports[str(value.name)].shape]
        value.shape = ir.Shape(shape)
    for node in model.graph:
        for value in node.outputs:
            if value not in boundary and value.shape is not None and not value.shape.is_static():
                value.shape = None


def _declared(dim: Dim, fixed: dict[str, int]) -> int | str:
    if isinstance(dim, int):
        return dim
    factor, _, name = dim.rpartition("*")
    return int(factor or 1) * fixed[name] if name in fixed else dim
