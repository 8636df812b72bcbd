"""Which precision every part gets: as the recipe says, or as what was recorded allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError
from exporter.reference.recording import HALF_MAX
from exporter.stages.keys import key_of

if TYPE_CHECKING:
    from exporter.part import Precision
    from exporter.stages.passes import Done
    from exporter.stages.plan import Plan
    from exporter.stages.store import Key

    Row = tuple[str, str, Key, Callable[[Path, Done], None]]

#: The largest activation that is trusted to half precision, as a share of the largest half number: other prompts, other seeds.
HALF_HEADROOM = 0.25
#: Share of a network's multiplications up to which `auto` takes islands of fp32: a GPU multiplies in half twice as quickly as in
#: TF32, so that at half of them three quarters of fp32's time are left, and casts take their part of what is saved.
MOST_IN_ISLANDS = 0.5
#: What `auto` and `mixed` store.
_FILE = "islands.json"


class Precisions:
    """The parts' precisions in a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def refuse(self) -> None:
        """Raise what cannot be decided, before time is spent.

        Raises:
            RecipeError: what would decide is not recorded.

        """
        for name in self._plan.family.roles:
            if self._asked(name) == "mixed" and self._plan.recipe.checks.skip:
                raise RecipeError(
                    f"components.{name}.precision: mixed keeps in fp32 what is seen to be too large, so the source is recorded; "
                    "leave checks.skip out"
                )

    def measured(self, name: str) -> bool:
        """Whether a part's precision depends on what the source does."""
        return self._asked(name) in {"auto", "mixed"}

    def stages(self, name: str, options: Mapping[str, Any], inputs: Mapping[str, str]) -> Iterator[Row]:
        """Find islands; nothing where the precision does not depend on them."""
        if self._asked(name) == "mixed" or (self._asked(name) == "auto" and not self._on_processor(name)):
            islands_key = key_of("islands", name, dict(options), inputs, (self._find, *self._plan.loaders(name)))
            yield "islands", name, islands_key, lambda folder, done: self._find(folder, name, done)

    def of(self, name: str, done: Done) -> Precision:
        """A part's precision; `auto` is resolved by measurement, and `mixed` is fp16 in which `single` names the rest."""
        asked = self._asked(name)
        return self.decide(name, done)[0] if asked == "auto" else "fp16" if asked == "mixed" else asked  # type: ignore[return-value]

    def single(self, name: str, done: Done) -> tuple[str, ...]:
        """Steps of a half-precision part that compute in float32."""
        found = self._found(name, done)
        return tuple(found["steps"]) if found and self.of(name, done) == "fp16" else ()

    def decide(self, name: str, done: Done) -> tuple[Precision, str]:
        """The precision that `auto` chooses for a part, and the sentence that says why."""
        if self._on_processor(name):
            return "fp32", f"{name}: auto chose fp32, every target is a processor, on which a half-precision graph saves no time"
        if self._plan.recipe.checks.skip:
            configs = self._plan.passes.outline.configs
            upcast = name.startswith("vae") and configs.get(name, configs["vae"]).get("force_upcast", True)
            why = "its config asks for force_upcast" if upcast else "its config does not ask for force_upcast"
            return "fp32" if upcast else "fp16", f"{name}: auto chose {'fp32' if upcast else 'fp16'}, unmeasured; {why}"
        peak = self._peak(name, done)
        told = f"the largest activation seen is {peak:.4g} of 65504"
        if peak <= HALF_HEADROOM * HALF_MAX:
            return "fp16", f"{name}: auto chose fp16, {told}"
        found = self._found(name, done)
        if "unheld" in found:
            return "fp32", f"{name}: auto chose fp32, {told}, and its weight {found['unheld']} is beyond that"
        if found["products"] > MOST_IN_ISLANDS:
            share = f"{found['products']:.0%} of the multiplications"
            return "fp32", f"{name}: auto chose fp32, {told}, and {share} would have to stay in it"
        return "fp16", f"{name}: auto chose fp16 with islands of fp32, {told}"

    def notes(self, done: Done) -> list[str]:
        """What was decided by measurement, a sentence each."""
        notes = []
        for name in self._plan.recipe.components:
            if self._asked(name) == "auto":
                notes.append(self.decide(name, done)[1])
            if self.single(name, done):
                notes.append(_told(name, self._found(name, done)))
        return notes

    def ranges(self, done: Done) -> dict[str, float]:
        """Component → the largest activation that was seen; of those with islands, the largest that stays in half precision."""
        ranges = json.loads((done[self._plan.reference] / "ranges.json").read_text())
        return ranges | {name: self._found(name, done)["left"] for name in self._plan.family.roles if self.single(name, done)}

    def _asked(self, name: str) -> str:
        component = self._plan.recipe.components.get(name)
        return component.precision if component else "fp32"

    def _on_processor(self, name: str) -> bool:
        return self._plan.on_processor(name)

    def _peak(self, name: str, done: Done) -> float:
        return json.loads((done[self._plan.reference] / "ranges.json").read_text())[name]

    def _found(self, name: str, done: Done) -> dict[str, Any]:
        folder = done.get(("islands", name))
        return json.loads((folder / _FILE).read_text()) if folder else {}

    def _find(self, folder: Path, name: str, done: Done) -> None:
        peak, found = self._peak(name, done), dict[str, Any](steps=[])
        if not peak <= HALF_HEADROOM * HALF_MAX:
            from exporter.onnx.capture import traced  # noqa: PLC0415
            from exporter.onnx.mixed_precision import find, unheld  # noqa: PLC0415 - torch
            from exporter.reference.recording import load_cases  # noqa: PLC0415

            # Of `mixed` a weight that half precision does not hold is an error, which loading it raises.
            if self._asked(name) == "auto" and (lost := unheld(self._plan.passes.part(name, "fp32", done), HALF_MAX)):
                found["unheld"] = lost
            else:
                part = self._plan.passes.part(name, "fp16", done)
                cases = load_cases(done[self._plan.reference] / f"{name}.npz")
                found = asdict(find(traced(part), part, cases, HALF_HEADROOM * HALF_MAX, peak))
        (folder / _FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _told(name: str, found: Mapping[str, Any]) -> str:
    """How large the islands are, and where."""
    return (
        f"{name}: {len(found['steps'])} steps compute in fp32 within fp16, {found['products']:.1%} of the multiplications with "
        f"{found['weights']:.1%} of the weights, because values reach {found['largest']:.4g} there; what stays in fp16 reaches "
        f"{found['left']:.4g}. The steps are of {', '.join(found['modules'])}"
    )
