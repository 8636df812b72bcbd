"""Part → torch.export's program, with derived dynamic dimensions, and with the islands that it is to have."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import sympy
import torch

from engines.errors import UnsupportedError
from exporter.onnx.complex_numbers import in_real_pairs
from exporter.onnx.isolation import isolated
from exporter.onnx.mixed_precision import split

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from engines.signature import Dim, Signature
    from exporter.part import Part

_DTYPES = {"float32": torch.float32, "int64": torch.int64}
#: Example sizes that are tried, one after the other, where a module takes another way at some sizes.
_EXAMPLES = 3
#: Comparison → the one that equal sides pass too.
_LOOSE: Mapping[Any, Any] = {sympy.StrictLessThan: sympy.LessThan, sympy.StrictGreaterThan: sympy.GreaterThan}


def traced(part: Part) -> ExportedProgram:
    """Trace a part with every named dimension dynamic within its range; the steps that it names compute in float32.

    Code that takes a way of its own at the very sizes of the example, such as a table for the size that a network was trained
    at, is traced again at others, which take the way that holds for all.

    The same part gives the same names of steps.

    Raises:
        torch._dynamo.exc.UserError: torch cannot express the module.
        UnsupportedError: the module takes one way at some sizes of the signature and another at others.

    """
    from torch._dynamo.exc import UserError, UserErrorType  # noqa: PLC0415 - torch.export's only public face, and slow to load

    broken, told = "", ""
    for number in range(_EXAMPLES):
        try:
            program = _program(part, number)
        except UserError as error:
            if error.error_type is not UserErrorType.CONSTRAINT_VIOLATION or str(error) == told or number == _EXAMPLES - 1:
                raise
            told = str(error)
            continue
        broken = _broken(program, part.signature)
        if not broken:
            if part.single:
                split(program, part.single)
            return program
    raise UnsupportedError(
        f"{part.name}: its code takes one way at some sizes of the recipe and another at others: {broken}.\n"
        "  A graph holds one way. Give one size, the same three times, or sizes that lie closer together."
    )


def _program(part: Part, number: int) -> ExportedProgram:
    inputs, axes = _example(part.signature, number)
    takes = inspect.signature(part.module.forward).parameters.values()
    shapes: Any = (axes,) if any(each.kind is each.VAR_POSITIONAL for each in takes) else axes  # as torch.export names inputs
    with warnings.catch_warnings(), torch.no_grad(), isolated(part.module), in_real_pairs(part.module):
        warnings.simplefilter("ignore")  # of the tracer about its own internals
        return torch.export.export(part.module, inputs, dynamic_shapes=shapes, strict=False)


def _broken(program: ExportedProgram, signature: Signature) -> str:
    """The first comparison of sizes that the program takes for granted and that does not hold over the signature's ranges.

    torch.export refuses those that fix a dimension, and no others. Where the program is the way for sizes that differ from some,
    which it says by an inequality, it may hold for these too: that is left to the checks. So is what fails where two sizes are
    equal, such as 1 < cells of a picture that has one.
    """
    named, environment = _symbols(program, signature)
    if environment is None:
        return ""
    assumed = {guard.expr.xreplace(environment.replacements) for guard in environment.guards}
    readable = {symbol: sympy.Symbol(name, integer=True) / by for symbol, (name, by) in named.items()}
    for each in sorted((each for each in assumed if isinstance(each, sympy.Rel) and not isinstance(each, sympy.Ne)), key=str):
        own = {named[symbol][0] for symbol in each.free_symbols if symbol in named}
        for sizes in _points(signature):
            known = {symbol: sizes[name] // by for symbol, (name, by) in named.items()}
            if each.free_symbols <= known.keys() and _LOOSE.get(type(each), type(each))(*each.args).subs(known) == sympy.false:
                where = ", ".join(f"{name} {sizes[name]}" for name in sorted(own))
                return f"the graph holds where {each.xreplace(readable)}, and not at {where}"
    return ""


def _symbols(program: ExportedProgram, signature: Signature) -> tuple[dict[Any, tuple[str, int]], Any]:
    """Symbol of a program → the dimension that it counts, and in steps of how many; and torch's record of what it guards."""
    found: dict[Any, tuple[str, int]] = {}
    environment = None
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for name, port in zip(program.graph_signature.user_inputs, signature.inputs, strict=True):
        for axis, dim in enumerate(port.shape):
            length = values[str(name)].shape[axis]
            if isinstance(dim, int) or not isinstance(length, torch.SymInt):
                continue
            environment, expression = length.node.shape_env, length.node.expr
            (symbol,) = expression.free_symbols
            factor, _, own = dim.rpartition("*")
            found[symbol] = own, int(expression.coeff(symbol)) // int(factor or 1)
    return found, environment


def _points(signature: Signature) -> Iterator[Mapping[str, int]]:
    """Sizes at the ends of the ranges and within them; 1 is special to torch.export, which traces with 2 and more."""
    ends = [signature.extent(which) for which in ("min", "typical", "max")]
    within = {name: each.multiple * ((each.min + each.max) // each.multiple // 2) for name, each in signature.dims.items()}
    for point in (*ends, within, *({**ends[0], name: length} for name, length in ends[2].items())):
        yield {name: min(max(2, length), signature.dims[name].max) for name, length in point.items()}


def _example(signature: Signature, number: int = 0) -> tuple[tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]:
    """Example tensors, other ones for each number, and, per input, the dynamic axes as torch.export wants them."""
    symbols: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, allowed in signature.dims.items():
        if allowed.min == allowed.max:
            sizes[name] = allowed.min
            continue
        # torch.export traces with 2 and more: of 1 or 2 alone code would be told that it is 2.
        low, high = allowed.min // allowed.multiple, max(3, allowed.max // allowed.multiple)
        root = torch.export.Dim(f"{name}_{allowed.multiple}" if allowed.multiple > 1 else name, min=low, max=high)
        symbols[name] = allowed.multiple * root if allowed.multiple > 1 else root
        # Lengths 0 and 1 are special to torch.export, and equal lengths of two dimensions would be taken for one.
        first = min(high, max(low, 2 + len(symbols)))
        sizes[name] = allowed.multiple * (first + number if first + number <= high else max(low, min(2, high), first - number))
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
