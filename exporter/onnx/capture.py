"""Part → torch.export's program, with derived dynamic dimensions, and with the islands that it is to have."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

import torch

from exporter.onnx.mixed_precision import split

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from engines.signature import Dim, Signature
    from exporter.part import Part

_DTYPES = {"float32": torch.float32, "int64": torch.int64}


def traced(part: Part) -> ExportedProgram:
    """Trace a part with every named dimension dynamic within its range; the steps that it names compute in float32.

    The same part gives the same names of steps.

    Raises:
        torch._dynamo.exc.UserError: torch cannot express the module.

    """
    inputs, axes = _example(part.signature)
    takes = inspect.signature(part.module.forward).parameters.values()
    shapes: Any = (axes,) if any(each.kind is each.VAR_POSITIONAL for each in takes) else axes  # as torch.export names inputs
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer about its own internals
        program = torch.export.export(part.module, inputs, dynamic_shapes=shapes, strict=False)
    if part.single:
        split(program, part.single)
    return program


def _example(signature: Signature) -> tuple[tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]:
    """Example tensors and, per input, the dynamic axes as torch.export wants them."""
    symbols: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, allowed in signature.dims.items():
        if allowed.min == allowed.max:
            sizes[name] = allowed.min
            continue
        low, high = allowed.min // allowed.multiple, allowed.max // allowed.multiple
        root = torch.export.Dim(f"{name}_{allowed.multiple}" if allowed.multiple > 1 else name, min=low, max=high)
        symbols[name] = allowed.multiple * root if allowed.multiple > 1 else root
        # Lengths 0 and 1 are special to torch.export, and equal lengths of two dimensions would be taken for one.
        sizes[name] = allowed.multiple * min(high, max(low, 2 + len(symbols)))
    tensors, shapes = [], []
    for port in signature.inputs:
        tensors.append(torch.zeros(signature.shape(port, sizes), dtype=_DTYPES[port.dtype]))
        shapes.append({axis: symbol for axis, dim in enumerate(port.shape) if (symbol := _symbol(dim, symbols)) is not None})
    return tuple(tensors), tuple(shapes)


def _symbol(dim: Dim, symbols: dict[str, Any]) -> Any:  # noqa: ANN401 - torch's Dim has no public type
    if isinstance(dim, int):
        return None
    factor, _, name = dim.rpartition("*")
    symbol = symbols.get(name)
    return int(factor) * symbol if factor and symbol is not None else symbol
