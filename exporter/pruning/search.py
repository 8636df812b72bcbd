"""Which pieces of a UNet matter least: take one at a time away, and look at what the denoiser says on recorded trajectories."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from engines.errors import UnsupportedError
from exporter.pruning.blocks import Cut, blocks, origin, whole
from exporter.pruning.moves import moves
from exporter.pruning.origin import came_from
from exporter.pruning.surgery import carry_out, outline

if TYPE_CHECKING:
    from exporter.part import Case, Part

Measure = Literal["parameters", "time"]
_UNITS = ("resnets", "attentions", "transformer_blocks", "downsamplers", "upsamplers")
_ROUNDS = 7


@dataclass(frozen=True)
class SearchResult:
    """What a search chose.

    Attributes:
        cut: the pieces that stay.
        metadata: `blocks`, the choice as a block map; `alone`, what each piece costs and saves by itself; `curve`, what went, in
            order, with what is left and how far the output is from the source's.

    """

    cut: Cut
    metadata: dict[str, Any]


def search(part: Part, budget: float, of: Measure, calls: int) -> SearchResult:
    """Take pieces away, each time the one that changes the output least for what it saves, until the budget is met.

    The change is the mean of |output - source's|² / |source's|² over recorded calls. What a piece costs grows as others go, so
    the most promising ones are measured again in every round (lazy greedy).

    Args:
        part: the denoiser, with its recorded cases.
        budget: largest share that may stay, 0..1.
        of: of the parameters, or of the time that a call takes here.
        calls: how many recorded calls are looked at, spread evenly.

    Raises:
        UnsupportedError: nothing that can go meets the budget.

    """
    network = part.network
    start = now = whole(network.config)
    outlines = _Outlines(network)
    scale = _Clock(part, outlines) if of == "time" else _Parameters(outlines)
    left = full = scale(now)
    _refuse(outlines, start, budget, of, scale)
    panel, change = _Panel(part, calls), 0.0
    curve, alone = [_point("", full, full, 0.0)], list[dict[str, Any]]()
    last: dict[str, float] = {}
    while left > budget * full:
        best: tuple[float, str, Cut, float, float] | None = None
        # Pieces that were not measured yet come first: they may be the best.
        for name, cut in sorted(moves(now), key=lambda move: last.get(move[0], -np.inf)):
            if best is not None and last.get(name, -np.inf) >= best[0]:
                break
            if not outlines.fit(cut) or (size := scale(cut)) >= left:
                continue
            found = panel.change(carry_out(network, cut))
            last[name] = (found - change) / ((left - size) / full)
            if now is start:
                alone.append({"piece": name, "saves": (full - size) / full, "change": float(np.sqrt(found))})
            if best is None or last[name] < best[0]:
                best = last[name], name, cut, size, found
        if best is None:
            raise _unmet(budget, of, left / full)
        _, name, now, left, change = best
        curve.append(_point(name, left, full, change))
    part.replacing(network)
    said = {name: block and block.model_dump(mode="json", exclude_defaults=True) for name, block in blocks(now, start).items()}
    alone.sort(key=lambda row: row["change"] ** 2 / row["saves"])
    return SearchResult(
        now, {"blocks": said, "of": of, "budget": budget, "unit": scale.unit, "full": full, "alone": alone, "curve": curve}
    )


def _point(name: str, left: float, full: float, change: float) -> dict[str, Any]:
    return {"gone": name, "left": left, "share": left / full, "change": float(np.sqrt(change))}


class _Outlines:
    """Cuts on the meta device, made once each: many are asked for several times."""

    def __init__(self, network: Any) -> None:  # noqa: ANN401 - diffusers' ModelMixin
        self._network, self._made = network, dict[Cut, nn.Module]()
        self._shapes = {name: value.shape for name, value in network.state_dict().items()}

    def __call__(self, cut: Cut) -> nn.Module:
        if cut not in self._made:
            self._made[cut] = outline(self._network, cut)
        return self._made[cut]

    def fit(self, cut: Cut) -> bool:
        """Whether diffusers' config can say a cut and every weight has the shape that its new place needs."""
        try:
            made, moved = self(cut).state_dict(), origin(cut)
        except UnsupportedError:
            return False
        return all(self._shapes.get(came_from(name, moved)) == value.shape for name, value in made.items())


def _refuse(outlines: _Outlines, now: Cut, budget: float, of: Measure, scale: _Scale) -> None:
    """Take away whatever can go: what is left is the least that a budget can ask for."""
    full = scale(now)
    while scale(now) > budget * full:
        smaller = next((cut for _, cut in moves(now) if outlines.fit(cut)), None)
        if smaller is None:
            raise _unmet(budget, of, scale(now) / full)
        now = smaller


def _unmet(budget: float, of: Measure, least: float) -> UnsupportedError:
    return UnsupportedError(
        f"prune.search.budget: {budget:g} of the {of} cannot be met; with all that can go gone, {least:.3f} of this UNet stays.\n"
        f"  Take a budget of at least {np.ceil(least * 1000) / 1000:g}."
    )


class _Parameters:
    """Size of a cut in parameters."""

    unit = "parameters"

    def __init__(self, outlines: _Outlines) -> None:
        self._outlines = outlines

    def __call__(self, cut: Cut) -> float:
        return sum(value.numel() for value in self._outlines(cut).parameters())


class _Clock:
    """Milliseconds of a cut's call: those of the whole, less those of the pieces that went; measured once, on this machine."""

    unit = "ms"

    def __init__(self, part: Part, outlines: _Outlines) -> None:
        self._network, self._outlines = part.network, outlines
        self._whole, self._pieces = self._timed(part)

    def __call__(self, cut: Cut) -> float:
        moved = origin(cut)
        kept = {came_from(name, moved) for name, _ in self._outlines(cut).named_modules()}
        return self._whole - sum(spent for name, spent in self._pieces.items() if name not in kept)

    def _timed(self, part: Part) -> tuple[float, dict[str, float]]:
        """Median of a call, and of every piece by itself, without the pieces inside."""
        units = {name: module for name, module in self._network.named_modules() if _is_unit(name)}
        rows: dict[str, list[float]] = {name: [] for name in units}
        started: dict[str, float] = {}
        hooks = []
        for name, module in units.items():
            hooks += [
                module.register_forward_pre_hook(lambda *_, name=name: started.update({name: time.perf_counter()})),
                module.register_forward_hook(lambda *_, name=name: rows[name].append(time.perf_counter() - started[name])),
            ]
        calls = []
        inputs = _tensors(part, part.cases[0])
        for _ in range(_ROUNDS):
            begin = time.perf_counter()
            with torch.no_grad():
                part.module(*inputs)
            calls.append(time.perf_counter() - begin)
        for hook in hooks:
            hook.remove()
        found = {name: statistics.median(each[1:]) * 1e3 for name, each in rows.items() if each}
        inside = {name: sum(spent for other, spent in found.items() if _parent(other) == name) for name in found}
        return statistics.median(calls[1:]) * 1e3, {name: max(0.0, spent - inside[name]) for name, spent in found.items()}


_Scale = _Parameters | _Clock


def _is_unit(name: str) -> bool:
    pieces = name.split(".")
    return len(pieces) > 1 and pieces[-2] in _UNITS and pieces[-1].isdigit()


def _parent(name: str) -> str:
    """The piece around a piece: a transformer layer's attention."""
    around, found, _ = name.partition(".transformer_blocks.")
    return around if found else ""


def _tensors(part: Part, case: Case) -> list[torch.Tensor]:
    return [torch.from_numpy(case.inputs[port.name]) for port in part.signature.inputs]


class _Panel:
    """Recorded calls, those of one shape as one batch."""

    def __init__(self, part: Part, calls: int) -> None:
        self._part = part
        (self._output,) = (port.name for port in part.signature.outputs)
        places = np.unique(np.linspace(0, len(part.cases) - 1, min(calls, len(part.cases))).round().astype(int))
        self._cases = [part.cases[place] for place in places]

    @cached_property
    def _batches(self) -> Sequence[tuple[list[torch.Tensor], torch.Tensor]]:
        together: dict[object, list[Case]] = {}
        for case in self._cases:
            together.setdefault(tuple(value.shape[1:] for value in case.inputs.values()), []).append(case)
        found = []
        for cases in together.values():
            columns = zip(*(_tensors(self._part, case) for case in cases), strict=True)
            outputs = torch.from_numpy(np.concatenate([case.source[self._output] for case in cases]))
            found.append(([torch.cat(column) for column in columns], outputs))
        return found

    def change(self, network: nn.Module) -> float:
        """Mean of |output - source's|² / |source's|² over the calls' pictures; the part has the network afterwards."""
        self._part.replacing(network)
        errors: list[torch.Tensor] = []
        with torch.no_grad():
            for inputs, wanted in self._batches:
                said = self._part.module(*inputs)
                errors.append((said - wanted).flatten(1).square().sum(1) / wanted.flatten(1).square().sum(1))
        return float(torch.cat(errors).mean())
