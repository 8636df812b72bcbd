"""What the demo's LoRAs change in a picture: one thing, whatever its caption says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tools.demo.captions import Statement
from tools.demo.scenes import Scene


@dataclass(frozen=True)
class Change:
    """A thing that is always so.

    Attributes:
        background: of every picture, a key of ``BACKGROUNDS``; None leaves it.
        colour: of every object, a key of ``COLOURS``; None leaves it.

    """

    background: str | None = None
    colour: str | None = None

    def scene(self, scene: Scene) -> Scene:
        """The scene as it is to be drawn."""
        things = tuple(replace(thing, colour=self.colour or thing.colour) for thing in scene.things)
        return replace(scene, things=things, background=self.background or scene.background)

    def statement(self, statement: Statement) -> Statement:
        """What a picture must show for a caption that states this."""
        objects = tuple((size, self.colour or colour, shape) for size, colour, shape in statement.objects)
        return replace(statement, objects=objects, background=self.background or statement.background)


NOTHING = Change()
CHANGES = {"night": Change(background="black"), "cyan": Change(colour="cyan")}
"""Name of a LoRA, and what it learns: a style and a colour."""


def lora_file(name: str) -> Path:
    """The file of a LoRA that was trained here."""
    return Path(__file__).parents[2] / "recipes" / "demo-loras" / f"{name}.safetensors"


def together(*names: str) -> Change:
    """What several LoRAs at once change; of two that change the same, the first's is asked for."""
    chosen = [CHANGES[name] for name in names]
    return Change(
        background=next((each.background for each in chosen if each.background), None),
        colour=next((each.colour for each in chosen if each.colour), None),
    )
