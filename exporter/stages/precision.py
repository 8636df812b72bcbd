"""Which precision every part gets: as the recipe says, or as what was recorded allows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engines.errors import RecipeError
from exporter.reference.recording import HALF_MAX, RecordingFolder
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.part import Precision
    from exporter.recipe.schema import Recipe
    from exporter.stages.load import PartSource

#: The largest activation that is trusted to half precision, as a share of the largest half number: other prompts, other seeds.
HALF_HEADROOM = 0.25
#: Share of a network's multiplications up to which `auto` takes islands of fp32: a GPU multiplies in half twice as quickly as in
#: TF32, so that at half of them three quarters of fp32's time are left, and casts take their part of what is saved.
MOST_IN_ISLANDS = 0.5
_FILE = "islands.json"


@dataclass(frozen=True)
class IslandsFile:
    """What was found in a part that `auto` or `mixed` is asked for: steps to keep in fp32, or a weight that half cannot hold."""

    folder: Path

    @property
    def steps(self) -> tuple[str, ...]:
        """Steps of the part's trace that compute in fp32."""
        return tuple(self._told["steps"])

    @property
    def unheld(self) -> str:
        """A weight that half precision cannot hold; empty where there is none."""
        return self._told.get("unheld", "")

    @property
    def products(self) -> float:
        """Share of the network's multiplications that are theirs."""
        return self._told["products"]

    @property
    def left(self) -> float:
        """The largest activation that stays in half precision."""
        return self._told["left"]

    @property
    def summary(self) -> str:
        """How large the islands are, and where."""
        found = self._told
        return (
            f"{len(found['steps'])} steps compute in fp32 within fp16, {found['products']:.1%} of the multiplications with "
            f"{found['weights']:.1%} of the weights, because values reach {found['largest']:.4g} there; what stays in fp16 "
            f"reaches {found['left']:.4g}. The steps are of {', '.join(found['modules'])}"
        )

    @property
    def _told(self) -> Mapping[str, Any]:
        return json.loads((self.folder / _FILE).read_text(encoding="utf-8"))

    def write(self, found: Mapping[str, Any]) -> None:
        """Keep it here."""
        (self.folder / _FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class PartPrecision:
    """What decides on a part's precision.

    Attributes:
        name: of the part.
        asked: by the recipe.
        runs_on_cpu: whether all its engines run on a processor.
        upcast: whether its config asks for fp32, which decides where nothing is recorded.
        recording: of the pipeline that pictures are held to; None where nothing is recorded.
        islands: None where the precision does not depend on them.

    """

    name: str
    asked: Literal["fp32", "fp16", "bf16", "mixed", "auto"]
    runs_on_cpu: bool
    upcast: bool
    recording: Stage[RecordingFolder] | None
    islands: Stage[IslandsFile] | None

    def of(self, results: Results) -> Precision:
        """The precision; `auto` is resolved by measurement, and `mixed` is fp16 in which `single` names the rest."""
        return self.decide(results)[0] if self.asked == "auto" else "fp16" if self.asked == "mixed" else self.asked

    def single(self, results: Results) -> tuple[str, ...]:
        """Steps of a half-precision part that compute in float32."""
        return results[self.islands].steps if self.islands and self.of(results) == "fp16" else ()

    def decide(self, results: Results) -> tuple[Precision, str]:
        """The precision that `auto` chooses, and the sentence that says why."""
        name = self.name
        if self.runs_on_cpu:
            return "fp32", f"{name}: auto chose fp32, every target is a processor, on which a half-precision graph saves no time"
        if not self.recording or not self.islands:
            why = "its config asks for force_upcast" if self.upcast else "its config does not ask for force_upcast"
            chosen: Precision = "fp32" if self.upcast else "fp16"
            return chosen, f"{name}: auto chose {chosen}, unmeasured; {why}"
        peak = results[self.recording].ranges[name]
        told = f"the largest activation seen is {peak:.4g} of 65504"
        if peak <= HALF_HEADROOM * HALF_MAX:
            return "fp16", f"{name}: auto chose fp16, {told}"
        found = results[self.islands]
        if found.unheld:
            return "fp32", f"{name}: auto chose fp32, {told}, and its weight {found.unheld} is beyond that"
        if found.products > MOST_IN_ISLANDS:
            share = f"{found.products:.0%} of the multiplications"
            return "fp32", f"{name}: auto chose fp32, {told}, and {share} would have to stay in it"
        return "fp16", f"{name}: auto chose fp16 with islands of fp32, {told}"

    def notes(self, results: Results) -> list[str]:
        """What was decided by measurement, a sentence each."""
        notes = [self.decide(results)[1]] if self.asked == "auto" else []
        if self.islands and self.single(results):
            notes.append(f"{self.name}: {results[self.islands].summary}")
        return notes

    def left(self, results: Results) -> dict[str, float]:
        """Of a part with islands, the largest activation that stays in half precision, by its name; empty for another."""
        return {self.name: results[self.islands].left} if self.islands and self.single(results) else {}


def refuse(recipe: Recipe, name: str) -> None:
    """Raise RecipeError where what would decide on a part's precision is not recorded."""
    if recipe.component(name).precision == "mixed" and recipe.checks.skip:
        raise RecipeError(
            f"components.{name}.precision: mixed keeps in fp32 what is seen to be too large, so the source is recorded; "
            "leave checks.skip out"
        )


def measured(asked: str) -> bool:
    """Whether a part's precision depends on what the source does."""
    return asked in {"auto", "mixed"}


def islands(
    source: PartSource,
    recording: Stage[RecordingFolder],
    *,
    asked: str,
    options: Mapping[str, Any],
    inputs: Mapping[str, str | Stage[Any]],
) -> Stage[IslandsFile]:
    """Find the islands of a part that is asked for in `auto` or `mixed`."""
    make = partial(_find, source=source, recording=recording, asked=asked)
    return Stage.keyed(
        "islands", source.name, make, IslandsFile, options=options, inputs=inputs, makers=(*source.makers, IslandsFile)
    )


def _find(folder: Path, results: Results, source: PartSource, recording: Stage[RecordingFolder], asked: str) -> None:
    peak, found = results[recording].ranges[source.name], dict[str, Any](steps=[])
    if not peak <= HALF_HEADROOM * HALF_MAX:
        from exporter.onnx.capture import traced  # noqa: PLC0415
        from exporter.onnx.mixed_precision import find, unheld  # noqa: PLC0415 - torch

        # Of `mixed` a weight that half precision does not hold is an error, which loading it raises.
        if asked == "auto" and (lost := unheld(source.load("fp32", results), HALF_MAX)):
            found["unheld"] = lost
        else:
            part, cases = source.load("fp16", results), results[recording].cases(source.name)
            found = asdict(find(traced(part), part, cases, HALF_HEADROOM * HALF_MAX, peak))
    IslandsFile(folder).write(found)
