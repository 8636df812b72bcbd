"""How a recipe's guidance becomes inputs of the denoiser: scales, and an open number of branches. Reads configs without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines.guidance import BRANCHES, PERTURBED, Guidance, Scale
from engines.signature import Port

if TYPE_CHECKING:
    from exporter.recipe.sampling import GuidanceOptions, SamplerOptions


def guidance(options: GuidanceOptions) -> Guidance:
    """Mode and scales: the usual one, and that of perturbed attention."""
    usual = Guidance.of(options.mode, options.scale)
    if options.pag is None:
        return usual
    pag = Scale(name=PERTURBED, default=options.pag.scale, off=0.0, perturbs=True)
    return Guidance(mode=usual.mode, scales=(*usual.scales, pag))


def scales(found: Guidance) -> Sequence[Port]:
    """A number of each picture for each scale."""
    return [Port(name=scale.name, shape=("batch",)) for scale in found.scales]


def steered(port: Port, found: Guidance, sampler: SamplerOptions) -> Port:
    """A text tower's output as the denoiser takes it: with an open number of branches, where calls take fewer, or one more."""
    opens = found.rows > 1 and sampler.opens
    return port.model_copy(update={"shape": ("batch", BRANCHES, *port.shape[2:])}) if opens else port
