"""A part as all its passes leave it, loaded for whichever stage looks at it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.stages.networks import MadeNetwork, family_of
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.part import Part, Precision
    from exporter.passes import Pass


@dataclass(frozen=True)
class PartSource:
    """Where a part comes from.

    Attributes:
        name: of the part.
        family: of the recipe.
        network: that its passes made; None where it is the source's.
        steps: its other passes, which are called whenever it is loaded.

    """

    name: str
    family: Family
    network: Stage[MadeNetwork] | None
    steps: tuple[Pass, ...]

    @property
    def makers(self) -> tuple[object, ...]:
        """Classes of what loads it."""
        kinds = (type(step) for step in self.steps)
        return PartSource, type(self.family), type(self.family.checkpoint), *kinds

    def load(self, precision: Precision, results: Results) -> Part:
        """Load it at a precision."""
        family = family_of(self.family, {self.name: results[self.network]}) if self.network else self.family
        part = family.part(self.name, precision)
        # The source's own contract, where that of a smaller network would be wider: the recordings are the source's.
        part = replace(part, signature=self.family.signature(self.name))
        for step in self.steps:
            part = step(part)
        return part
