"""Which layers of a network take LoRAs as inputs of its graph, and the ports of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from engines.signature import Dim, Length, Port, Range, Signature
from engines.strict import Frozen, read_bytes, read_json

#: Dimension of what all LoRAs of a request have together in rank, and what it is a multiple of: kernels like such lengths.
RANK, STEP = "lora_rank", 8
#: What each image's LoRAs are multiplied by, rank by rank: of products, and of convolutions.
SCALE, CONV_SCALE = "lora_scale", "lora_scale_conv"
_LIMIT = 64 * 2**20
_Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class LoraLimits(Frozen):
    """How many LoRAs a network takes at once, and how large they may be.

    Attributes:
        slots: LoRAs at once, of all images of a call together.
        max_rank: of one LoRA in linear layers and convolutions of one pixel.
        conv_rank: of one LoRA in larger convolutions, whose inputs have this rank always; 0 leaves them out.

    """

    slots: int = Field(ge=1, le=64, description="LoRAs at once, of all images of a call together")
    max_rank: int = Field(
        ge=STEP, le=1024, multiple_of=STEP, description="largest rank of one LoRA in linear layers and 1 × 1 convolutions"
    )
    conv_rank: int = Field(
        ge=0, le=1024, multiple_of=STEP, description="the same of larger convolutions, which costs time always; 0 leaves them out"
    )


class LoraLayer(Frozen):
    """One layer.

    Attributes:
        name: of the module in the network.
        spelled: how files may call it, without what they put before all names.
        shape: of its weight: outputs, inputs, and the sides of a kernel.
        index: in the names of its ports; None where the build left it out.
        used: whether the network's answer depends on it; of a text encoder that is read before its last layer, that one does not
            count, and LoRAs that change it change nothing there.

    """

    name: _Text
    spelled: tuple[_Text, ...]
    shape: tuple[Length, ...] = Field(min_length=2, max_length=4)
    index: int | None = Field(default=None, ge=0, le=100_000)
    used: bool = True

    @property
    def form(self) -> Literal["rows", "pixels", "convolution"]:
        """How its product is taken: of rows, of the pixels of an image, or by a convolution with a kernel."""
        return "rows" if len(self.shape) == 2 else "pixels" if set(self.shape[2:]) == {1} else "convolution"

    def ports(self, limits: LoraLimits) -> tuple[Port, Port]:
        """A and B, as the layer's product takes them."""
        outputs, inputs, *kernel = self.shape
        sides: dict[str, tuple[tuple[Dim, ...], tuple[Dim, ...]]] = {
            "rows": ((inputs, RANK), (RANK, outputs)),
            "pixels": ((RANK, inputs), (outputs, RANK)),
            "convolution": ((rank := limits.slots * limits.conv_rank or 1, inputs, *kernel), (outputs, rank, 1, 1)),
        }
        a, b = sides[self.form]
        names = (f"lora_{side}_{self.index}" for side in "ab")
        first, second = (Port(name=name, shape=shape, optional=True) for name, shape in zip(names, (a, b), strict=True))
        return first, second


class LoraLayers(Frozen):
    """All layers of a network that a LoRA could name, as the bundle's file has them."""

    layers: tuple[LoraLayer, ...]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        taken = [layer.index for layer in self.layers if layer.index is not None]
        names = [layer.name for layer in self.layers]
        if len(set(taken)) != len(taken) or len(set(names)) != len(names):
            raise ValueError("two layers share a name or ports")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; raise BundleError when it is damaged."""
        data = read_bytes(path, _LIMIT)
        read_json(data, path)
        return cls.parse(data, path)

    @property
    def taken(self) -> list[LoraLayer]:
        """Those that have ports."""
        return [layer for layer in self.layers if layer.index is not None]


def extended(signature: Signature, layers: Iterable[LoraLayer], limits: LoraLimits) -> Signature:
    """A network's contract with the ports of its layers, which rest at zero where nobody feeds them."""
    taken = [layer for layer in layers if layer.index is not None]
    ports = [port for layer in taken for port in layer.ports(limits)]
    batch = signature.inputs[0].shape[0]
    whole = limits.slots * limits.max_rank
    dims: dict[str, Range] = {}
    if any(layer.form != "convolution" for layer in taken):
        ports.append(Port(name=SCALE, shape=(batch, RANK), optional=True))
        dims[RANK] = Range(min=STEP, typical=limits.max_rank, max=whole, multiple=STEP)
    if any(layer.form == "convolution" for layer in taken):
        ports.append(Port(name=CONV_SCALE, shape=(batch, limits.slots * limits.conv_rank), optional=True))
    return Signature(inputs=(*signature.inputs, *ports), outputs=signature.outputs, dims={**signature.dims, **dims})


def rounded(rank: int) -> int:
    """The length of `lora_rank` that holds a rank."""
    return max(STEP, -(-rank // STEP) * STEP)


def listed(names: Sequence[str], most: int = 6) -> str:
    """Some of many names, for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
