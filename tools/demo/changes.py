"""What the demo's LoRAs change in a picture: one trait of every object, whatever its caption says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tools.demo.captions import Statement
from tools.demo.scenes import Scene


@dataclass(frozen=True)
class Change:
    """Something that is so of every object.

    Attributes:
        colour: a key of ``COLOURS``; None leaves each its own.
        shape: one of ``SHAPES``; None leaves each its own.

    """

    colour: str | None = None
    shape: str | None = None

    def scene(self, scene: Scene) -> Scene:
        """The scene as it is to be drawn."""
        things = (replace(each, colour=self.colour or each.colour, shape=self.shape or each.shape) for each in scene.things)
        return replace(scene, things=tuple(things))

    def statement(self, statement: Statement) -> Statement:
        """What a picture must show for a caption that states this."""
        objects = ((size, self.colour or colour, self.shape or shape) for size, colour, shape in statement.objects)
        return replace(statement, objects=tuple(objects))


NOTHING = Change()
CHANGES = {"cyan": Change(colour="cyan"), "stars": Change(shape="star")}
"""Name of a LoRA, and what it learns."""


def lora_file(name: str) -> Path:
    """The file of a LoRA that was trained here."""
    return Path(__file__).parents[2] / "recipes" / "demo-loras" / f"{name}.safetensors"


def together(*names: str) -> Change:
    """What several LoRAs at once change; of two that change the same, the first's is asked for."""
    chosen = [CHANGES[name] for name in names]
    return Change(
        colour=next((each.colour for each in chosen if each.colour), None),
        shape=next((each.shape for each in chosen if each.shape), None),
    )
