"""What a quantization is asked to do. Needs no onnx."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from engines.errors import UnsupportedError
from exporter.quantization.formats import FORMATS, Format, refuse
from exporter.recipe.pass_options import Kind, PassOptions

Text = Annotated[str, StringConstraints(min_length=1)]


class QuantizeOptions(PassOptions):
    """Format, layers, how ranges are chosen, and what the result must win."""

    kind: ClassVar[Kind] = "graph"

    format: Text = Field(description="t2iexport list formats")
    keep: tuple[Text, ...] | None = Field(
        default=None,
        description="layers that stay as they are, by name or pattern; null: first and last convolution, and the time embedding",
    )
    keep_above: float | None = Field(
        default=None,
        gt=0,
        description="PSNR in dB that the network's output must keep; the most sensitive layers stay as they are until it does",
    )
    budget: float | None = Field(default=None, gt=0, le=1, description="share of the layers to quantize, the least sensitive")
    rest: Literal["none", "int8-weights"] = Field(
        default="none",
        description="what becomes of the layers that stay: weights in 8 bits; with keep_above or budget, of those that bear it",
    )
    untouched: tuple[Text, ...] = Field(
        default=(),
        description="layers that rest leaves too, by name or pattern, besides those that keep_above or budget find",
    )
    ranges: Literal["stepwise", "percentile", "minmax"] = Field(
        default="stepwise", description="how ranges of activations are chosen; stepwise weighs every step alike"
    )
    percentile: float = Field(default=99.99, gt=50, le=100, description="of the magnitude, for ranges: percentile")
    alpha: float = Field(default=0.5, ge=0, le=1, description="SmoothQuant: how much of a channel's size moves into the weights")
    search: bool = Field(default=True, description="int4-weights: AWQ's search for channel factors, which needs recorded calls")
    block: Literal[32, 64, 128] = Field(default=64, description="int4-weights: neighbours that share a scale, at most")
    outputs: bool | None = Field(
        default=None,
        description="round outputs of int8 convolutions too, as ONNX Runtime's kernel needs; null: where that is a target",
    )
    samples: int | None = Field(default=None, ge=2, description="recorded calls to look at; null: up to 32, evenly spread")
    calibration: Text | None = Field(default=None, description="calibration/<part>.json of another bundle, instead of measuring")
    gate: Literal["speed", "size"] | None = Field(
        default=None, description="what it must win to be kept; null: what the format is for"
    )
    fallback: Literal["fp32", "fp16", "bf16"] | None = Field(
        default=None,
        description="the component's precision: where limits or the gate are missed, it is kept in that, unquantized; null: fail",
    )

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            refuse(name, ())
        except UnsupportedError as error:
            raise ValueError(" ".join(line.strip() for line in str(error).splitlines())) from error
        return name

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in ("keep_above", "budget", "calibration") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each say which layers are quantized; keep one")
        if self.untouched and self.rest == "none":
            raise ValueError("untouched says what rest leaves, and rest is none; write rest: int8-weights, or leave it out")
        return self

    @property
    def form(self) -> Format:
        """What the format is."""
        return FORMATS[self.format]

    @property
    def summary(self) -> str:
        """The pass and its format."""
        return f"quantize: {self.format}"

    @property
    def recorded(self) -> bool:
        """Whether it has to see recorded calls: for ranges, for the search, or to know which layers are sensitive."""
        searching = self.form.weights == "int4" and self.search
        scanning = self.keep_above is not None or self.budget is not None
        return self.calibration is None and (self.form.activations or searching or scanning)
