"""Islands of single precision in a half-precision network: what would overflow, found on recorded calls, and nothing else.

They are single steps of the network's trace, not modules: where a residual sum is too large, its convolutions stay in half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind
from torch.fx.node import map_aggregate

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from exporter.part import Case, Part

_HALF, _SINGLE = torch.float16, torch.float32
_ATEN = torch.ops.aten
_CONVOLUTIONS = (_ATEN.conv2d.default, _ATEN.conv2d.padding)
#: Steps whose work is counted besides: linear layers and products of matrices.
_PRODUCTS = (_ATEN.linear.default, _ATEN.matmul.default, _ATEN.bmm.default)
_ATTENTION = _ATEN.scaled_dot_product_attention.default
#: What checks a type at run time, and would check for the one that was.
_CHECKS = (_ATEN._assert_tensor_metadata.default,)  # noqa: SLF001 - its name
#: Rows of attention's scores that are looked at together.
_ROWS = 1024


@dataclass(frozen=True)
class Islands:
    """What of a half-precision network computes in single precision.

    Attributes:
        steps: names in the trace, in its order.
        modules: to which they belong, in that order.
        largest: magnitude of what they hold.
        left: largest magnitude of what stays in half.
        products: their share of the network's multiplications, 0..1.
        weights: their share of its parameters, 0..1.

    """

    steps: tuple[str, ...]
    modules: tuple[str, ...]
    largest: float
    left: float
    products: float
    weights: float


def find(program: ExportedProgram, part: Part, cases: Sequence[Case], bound: float, recorded: float) -> Islands:
    """Run a half-precision part in float32 on its cases, and see which steps' values are beyond the bound.

    A step is in an island if its own value is, or one that it reads. Islands grow no further: what they make that is small leaves
    them as half.

    Args:
        program: the part's trace.
        part: in fp16.
        cases: its recorded calls.
        bound: the largest magnitude that half precision is trusted with.
        recorded: the largest output of any module in all calls; where the cases show less, they count for as much more.

    """
    seen = _Seen(program)
    for case in cases:
        seen([torch.from_numpy(case.inputs[port.name]) for port in part.signature.inputs])
    factor = max(1.0, recorded / max(seen.peaks.values(), default=recorded))
    peaks = {name: peak * factor for name, peak in seen.peaks.items()}
    beyond = {name for name, peak in peaks.items() if not peak <= bound}
    steps = [node for node in program.graph.nodes if node.op == "call_function" and _touched(node, beyond)]
    names = {node.name for node in steps}
    read = {each.name for node in steps for each in node.all_input_nodes if each.op == "placeholder"}
    sizes = {name: tensor.numel() for name, tensor in _weights(program).items()}
    total = sum(seen.work.values())
    return Islands(
        steps=tuple(node.name for node in steps),
        modules=tuple(dict.fromkeys(_module(node) for node in steps)),
        largest=max((peaks[name] for name in beyond), default=0.0),
        left=max((peak for name, peak in peaks.items() if name not in names), default=0.0),
        products=sum(seen.work[name] for name in names) / total if total else 0.0,
        weights=sum(size for name, size in sizes.items() if name in read) / max(1, sum(sizes.values())),
    )


def unheld(part: Part, largest: float) -> str:
    """The first weight of a part that has a magnitude beyond the largest of half precision, or nothing."""
    return next((name for name, value in part.module.named_parameters() if not float(value.detach().abs().amax()) <= largest), "")


def split(program: ExportedProgram, steps: Iterable[str]) -> None:
    """Let the steps compute in float32: casts at the shores, one a value, and types that were written out made wider.

    Raises:
        RuntimeError: the trace has no such step.

    """
    graph, wanted = program.graph, set(steps)
    if lost := wanted - {node.name for node in graph.nodes}:
        raise RuntimeError(f"islands name steps that the trace does not have: {', '.join(sorted(lost)[:3])}")
    shores, wide = _Shores(graph), set[fx.Node]()
    for node in list(graph.nodes):
        if node.target in _CHECKS and node.args[0] in wide:
            graph.erase_node(node)
        elif node.name in wanted:
            for value in node.all_input_nodes:
                if value not in wide and _dtype(value) == _HALF:
                    node.replace_input_with(value, shores.cast(value, _SINGLE, node))
            node.args, node.kwargs = _widened(node.args, node.kwargs)
            if _dtype(node) == _HALF:
                node.meta["val"] = _typed(node.meta["val"], _SINGLE)
                wide.add(node)
        elif _takes_values(node):
            for value in wide.intersection(node.all_input_nodes):
                node.replace_input_with(value, shores.cast(value, _HALF, node))
    graph.lint()
    program.graph_module.recompile()


class _Shores:
    """Where values come into islands and leave them: one cast for each value and direction."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph, self._made = graph, dict[tuple[fx.Node, torch.dtype], fx.Node]()
        self._last = [node for node in graph.nodes if node.op == "placeholder"][-1]

    def cast(self, value: fx.Node, dtype: torch.dtype, reader: fx.Node) -> fx.Node:
        """The value in another type, for its first reader and all others."""
        if (value, dtype) not in self._made:
            with self._graph.inserting_after(self._last if value.op == "placeholder" else value):
                made = self._graph.call_function(_ATEN._to_copy.default, (value,), {"dtype": dtype})  # noqa: SLF001 - its name
            held, stack = value.meta["val"], reader.meta.get("nn_module_stack", {})
            made.meta = {"val": held.to(dtype), "nn_module_stack": stack}
            self._made[value, dtype] = made
        return self._made[value, dtype]


def run(
    program: ExportedProgram, inputs: Sequence[Tensor], seen: Callable[[fx.Node, Any], None] = lambda _step, _made: None
) -> tuple[Tensor, ...]:
    """Outputs of a program, such as `split` changed; convolutions and linear layers in half sum in float32, as GPUs do.

    `seen` is told of every step what it made.
    """
    return _Rounded(program, seen)(inputs)


class _Player(fx.Interpreter):
    """Plays a program on recorded calls."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.graph_module)
        self._weights = _weights(program)
        self._given = program.graph_signature.input_specs

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        given = iter(inputs)
        every = [next(given) if spec.kind == InputKind.USER_INPUT else self.held(spec.arg.name) for spec in self._given]
        with torch.no_grad():
            return tuple(self.run(*every))

    def held(self, name: str) -> Tensor:
        return self._weights[name]


class _Rounded(_Player):
    def __init__(self, program: ExportedProgram, seen: Callable[[fx.Node, Any], None]) -> None:
        super().__init__(program)
        self._seen = seen

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own
        made = super().run_node(n)
        self._seen(n, made)
        return made

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - fx's own
        if target in (*_CONVOLUTIONS, _ATEN.linear.default) and args[0].dtype == _HALF:
            single = [each.float() if isinstance(each, Tensor) else each for each in args]
            return super().call_function(target, tuple(single), kwargs).to(_HALF)
        return super().call_function(target, args, kwargs)


class _Seen(_Player):
    """Plays in float32, and keeps the largest magnitude of every value that would be half, and what each step multiplies."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program)
        self.peaks: dict[str, float] = {}
        self.work: Counter[str] = Counter()

    def held(self, name: str) -> Tensor:
        tensor = super().held(name)
        return tensor.float() if tensor.dtype == _HALF else tensor

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own
        if n.target in _CHECKS:
            return None
        made = super().run_node(n)
        if n.op == "call_function" and _dtype(n) == _HALF:
            peak = max(map(_peak, made if isinstance(made, tuple | list) else [made]))
            args, _ = self.fetch_args_kwargs_from_env(n)
            if n.target is _ATTENTION:
                peak = max(peak, _scores(args[0], args[1], cast("float | None", n.kwargs.get("scale"))))
            self.peaks[n.name] = max(self.peaks.get(n.name, 0.0), peak)
            self.work[n.name] += _work(n.target, args, made)
        return made

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - fx's own
        args, kwargs = _widened(args, kwargs)
        return super().call_function(target, args, kwargs)


def _weights(program: ExportedProgram) -> Mapping[str, Tensor]:
    """Placeholder → parameter, buffer or constant."""
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT and spec.target is not None:
            held = program.state_dict if spec.target in program.state_dict else program.constants
            found[spec.arg.name] = held[spec.target]
    return found


def _touched(node: fx.Node, beyond: set[str]) -> bool:
    """Whether a step makes or reads a value that half precision does not hold."""
    return _takes_values(node) and (node.name in beyond or any(each.name in beyond for each in node.all_input_nodes))


def _takes_values(node: fx.Node) -> bool:
    """Whether a step computes with numbers, not with shapes."""
    return _dtype(node) is not None


def _dtype(node: fx.Node) -> torch.dtype | None:
    """Type of a step's value, or of all of them; None where it makes no tensor."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list):
        value = next((each for each in value if isinstance(each, Tensor)), None)
    return value.dtype if isinstance(value, Tensor) else None


def _typed(value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401 - a tensor, or several
    if isinstance(value, tuple | list):
        return type(value)(_typed(each, dtype) for each in value)
    return value.to(dtype) if isinstance(value, Tensor) else value


def _widened(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A step's arguments, with float32 where half precision was named."""
    # It keeps the kinds of what holds them, and does not say so.
    return cast("tuple[tuple[Any, ...], dict[str, Any]]", map_aggregate((args, dict(kwargs)), _wider))


def _wider(value: Any) -> Any:  # noqa: ANN401 - any argument
    return _SINGLE if value is _HALF else value


def _module(node: fx.Node) -> str:
    """The innermost module that a step belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values()]
    return names[-1] if names and names[-1] else "the wrapper"


def _peak(tensor: Tensor) -> float:
    peak = float(tensor.abs().amax()) if tensor.numel() else 0.0
    return peak if peak == peak else float("inf")  # noqa: PLR0124 - NaN


def _scores(query: Tensor, key: Tensor, scale: float | None) -> float:
    """Largest magnitude of query · key in attention, which is no value of its own."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    turned = key.transpose(-1, -2) * factor
    return max(_peak(query[..., row : row + _ROWS, :] @ turned) for row in range(0, query.shape[-2], _ROWS))


def _work(target: Any, args: Sequence[Any], made: Any) -> int:  # noqa: ANN401 - fx's own
    """Multiplications of a step that is mostly that."""
    if target in _CONVOLUTIONS:
        return made.numel() * args[1][0].numel()
    if target in _PRODUCTS:
        return made.numel() * args[0].shape[-1]
    if target is _ATTENTION:
        return 2 * args[0].numel() * args[1].shape[-2]
    return 0
