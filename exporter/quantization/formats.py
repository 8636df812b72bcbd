"""Which number formats there are, and what backends say of them: behind `list formats`, docs/formats.md and refusals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engines import plugins
from engines.errors import UnsupportedError
from engines.plugins import did_you_mean


@dataclass(frozen=True)
class Format:
    """One way to quantize a network.

    Attributes:
        about: what it does, in a sentence.
        weights: type of the weights.
        conv: type of a convolution's input; empty where it stays as it is.
        product: type of the input of a product with a constant matrix; empty where it stays as it is.
        gate: what it must win to be kept, unless the recipe says otherwise: speed or size.
        refused: why it is not offered; empty where it is.

    """

    about: str
    weights: str = ""
    conv: str = ""
    product: str = ""
    gate: str = "size"
    refused: str = ""

    @property
    def activations(self) -> bool:
        """Whether activations are quantized too, so that their ranges must be known."""
        return bool(self.conv or self.product)


#: Format → what it is. All are symmetric: the zero point is 0.
FORMATS: Mapping[str, Format] = {
    "int8": Format("weights and activations in 8 bits", "int8", "int8", "int8", "speed"),
    "int8-smoothquant": Format(
        "int8, after moving large channels from activations into weights (2211.10438)", "int8", "int8", "int8", "speed"
    ),
    "int8-hybrid": Format("convolutions in int8, of matrix products the weights only", "int8", "int8", "", "speed"),
    "int8-weights": Format("weights in 8 bits, one scale per output channel", "int8"),
    "int4-weights": Format("weights in 4 bits, one scale per block, after activation-aware scaling (AWQ, 2306.00978)", "int4"),
    "fp8": Format("weights and activations in FP8 E4M3", "fp8", "fp8", "fp8", "speed"),
    "nvfp4": Format(
        "FP4 with an FP8 scale per 16 weights",
        refused="its calibration (nvidia-modelopt) needs tensors on a CUDA device, and no machine with one built it here",
    ),
    "svdquant": Format(
        "4 bits beside a low-rank branch in 16 bits",
        refused="its calibration (nvidia-modelopt) needs tensors on a CUDA device, and no backend here fuses its low-rank branch",
    ),
}


def refuse(name: str, targets: Iterable[str]) -> None:
    """Raise UnsupportedError where a format is not offered, or a target does not take it; says who does. Spends no time."""
    if name not in FORMATS:
        raise UnsupportedError(f"no format {name!r}{did_you_mean(name, offered())}")
    if why := FORMATS[name].refused:
        raise UnsupportedError(f"{name} is not offered: {why}.\n  There are: {', '.join(offered())}.")
    for target in targets:
        if why := plugins.load("backends", target).refused_formats.get(name):
            takers = [each for each, backend in plugins.known("backends").items() if name in backend.formats]
            others = plugins.load("backends", target).formats
            raise UnsupportedError(
                f"{target} does not take {name}: {why}.\n"
                f"  {name} is for {', '.join(takers)}; {target} takes {', '.join(others)}: t2iexport list formats."
            )


def offered() -> list[str]:
    """Names of the formats that can be asked for."""
    return [name for name, form in FORMATS.items() if not form.refused]


def rows() -> list[dict[str, str]]:
    """The table, a row a format and target."""
    found = []
    for name, form in FORMATS.items():
        if form.refused:
            found.append({"format": name, "target": "none", "answer": f"refused: {form.refused}", "what": form.about})
            continue
        known = plugins.known("backends").items()
        answers = {target: backend.formats[name] for target, backend in known if name in backend.formats}
        answers |= {target: f"refused: {why}" for target, backend in known if (why := backend.refused_formats.get(name))}
        found += [
            {"format": name, "target": backend, "answer": told, "what": "" if index else form.about}
            for index, (backend, told) in enumerate(sorted(answers.items()))
        ]
    return found
