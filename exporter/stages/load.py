"""A part as all its passes leave it, loaded for whichever stage looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engines.errors import UnsupportedError
from exporter.stages.networks import MadeNetwork, family_of
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.families import Family
    from exporter.part import Part, Precision
    from exporter.passes import Pass


def pipeline_of(family: Family, sources: Mapping[str, PartSource], results: Results) -> Any:  # noqa: ANN401 - a diffusers pipeline
    """The family's pipeline of diffusers, fp32, with the networks as all passes leave them.

    Raises:
        UnsupportedError: a pass works on half of the VAE whenever it is loaded, and the pipeline has only the whole.

    """
    made = {name: results[source.network] for name, source in sources.items() if source.network}
    pipeline = family_of(family, made).reference().pipeline
    for name, source in sources.items():
        if source.steps and not hasattr(pipeline, name):
            raise UnsupportedError(f"{name}: its passes change half of a VAE, and diffusers holds it whole. Build without them.")
        if source.steps:
            setattr(pipeline, name, source.load("fp32", results).network)
    return pipeline


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
