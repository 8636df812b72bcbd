"""What a model was made for, by which samplers are judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelPurpose:
    """What a model was made for.

    Attributes:
        kind: a key of `pairings.json`; empty for a model that any sampler suits.
        told_by: what says so: a name, a field, the recipe.
        steps: of this very file, where its name tells, or of the pass that made it.
        prediction: what the network predicts, where a pass changed it.
        starts: where its steps begin, as places of a trailing grid of so many steps; None where they are that grid.

    """

    kind: str = ""
    told_by: str = ""
    steps: int | None = None
    prediction: str = ""
    starts: tuple[int, tuple[int, ...]] | None = None
