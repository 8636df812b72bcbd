"""A part as its passes leave it: whose network, under whose contract, and which steps in which order."""

from dataclasses import dataclass, replace
from pathlib import Path

from exporter.part import Part
from exporter.stages.load import PartSource
from exporter.stages.networks import MadeNetwork


@dataclass(frozen=True)
class Checkpoint:
    replaced: tuple[tuple[str, Path], ...] = ()

    def replacing(self, part, folder):
        return Checkpoint((*self.replaced, (part, folder)))


@dataclass(frozen=True)
class Family:
    """Whose contract tells how many networks are not the source's."""

    checkpoint: Checkpoint = Checkpoint()

    def replacing(self, *, checkpoint):
        return Family(checkpoint)

    def signature(self, name):
        return f"{name} with {len(self.checkpoint.replaced)} other networks"

    def part(self, name, precision):
        return Part(name, "denoiser", self.checkpoint.replaced, self.signature(name), precision)


@dataclass(frozen=True)
class Note:
    """A pass that says that it ran."""

    text: str

    def __call__(self, part):
        return replace(part, notes=(*part.notes, f"{self.text} of {part.signature}"))


STAGE = "a stage that made a network"
RESULTS = {STAGE: MadeNetwork(Path("made"))}


def test_the_source_s_own_network():
    made = PartSource("unet", Family(), None, ()).load("fp16", {})
    assert (made.name, made.precision, made.module) == ("unet", "fp16", ())
    assert made.signature == "unet with 0 other networks"


def test_a_network_that_passes_made_stands_under_the_source_s_contract():
    made = PartSource("unet", Family(), STAGE, ()).load("fp32", RESULTS)
    assert made.module == (("unet", Path("made")),)
    assert made.signature == "unet with 0 other networks"


def test_other_passes_are_called_in_order_and_see_that_contract():
    made = PartSource("unet", Family(), STAGE, (Note("first"), Note("second"))).load("fp32", RESULTS)
    assert made.notes == ("first of unet with 0 other networks", "second of unet with 0 other networks")


def test_its_makers_are_all_whose_code_runs():
    assert PartSource("unet", Family(), None, (Note("x"),)).makers == (PartSource, Family, Checkpoint, Note)
    assert PartSource("unet", Family(), None, ()).makers == (PartSource, Family, Checkpoint)
