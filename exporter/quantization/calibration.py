"""What was decided for every layer of a network, and on what evidence: plain data, as `calibration/<part>.json` holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from engines.errors import RecipeError
from engines.strict import Frozen, describe

#: Largest number that each type of integer or float holds; int4 and int8 are used symmetrically.
LARGEST = {"int8": 127.0, "int4": 7.0, "fp8": 448.0}


class Spec(Frozen):
    """How one layer is quantized.

    Attributes:
        weights: type of the weight.
        activations: type of the input; empty where it stays as it is.
        range: largest magnitude of the input that has a number; what is larger is clipped to it.
        output: the same of the output, where that is quantized too.
        factors: per input channel, by which the weight is multiplied and the input divided.

    """

    weights: Literal["int8", "int4", "fp8"]
    activations: Literal["int8", "fp8", ""] = ""
    range: float | None = Field(default=None, gt=0)
    output: float | None = Field(default=None, gt=0)
    factors: tuple[float, ...] = ()


class Seen(Frozen):
    """What a layer's input was seen to be.

    Attributes:
        largest: magnitude.
        percentiles: of the magnitude, by percent.
        steps: time of the denoiser (or number of the call) → largest magnitude there.
        histogram: of the magnitude, 64 equal bins from 0 to `top`.
        top: end of the histogram.

    """

    largest: float
    percentiles: dict[str, float]
    steps: tuple[tuple[str, float], ...]
    histogram: tuple[int, ...]
    top: float


class Calibration(Frozen):
    """The whole of it.

    Attributes:
        part: of the recipe.
        digest: of the network's weights, as the checkpoint or the pass that made them has it.
        format: of the recipe.
        ranges: how ranges were chosen.
        samples: labels of the calls that were looked at.
        layers: name → how it is quantized, in the graph's order.
        kept: name → why it is not quantized as the format says, and what it is instead where `rest` was asked for.
        sensitivity: name → PSNR in dB of the network's output when that layer alone is quantized, the worst of the calls.
        rest: the same when that layer's weights alone are in 8 bits, where `rest` was asked for.
        measured: the same with all of `layers` quantized, as far as that was measured.
        seen: name → what its input was seen to be.

    """

    part: str
    digest: str
    format: str
    ranges: str
    samples: tuple[str, ...]
    layers: dict[str, Spec]
    kept: dict[str, str]
    sensitivity: dict[str, float] = Field(default_factory=dict)
    rest: dict[str, float] = Field(default_factory=dict)
    measured: float | None = None
    seen: dict[str, Seen] = Field(default_factory=dict)

    def dump(self, path: Path) -> None:
        """Write it; the same content gives the same bytes."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read(path: Path, where: str) -> Calibration:
    """Read a calibration that a recipe names.

    Raises:
        RecipeError: it is none.

    """
    try:
        return Calibration.model_validate_json(path.read_bytes(), strict=True)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RecipeError(f"{where}: {path} is not a file; a bundle keeps its calibrations in calibration/") from error
    except ValidationError as error:
        raise RecipeError(f"{where}: {path} is not a calibration of this version:\n{describe(error)}") from error


def short(value: float) -> float:
    """Four significant digits: the last bits of a sum depend on how it was split, and nothing depends on them."""
    return float(f"{value:.4g}")
