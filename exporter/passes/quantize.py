"""Fewer bits: int8, int8-smoothquant, int8-hybrid, fp8, int8-weights, int4-weights; per layer, as measured on recorded calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.quantization.options import QuantizeOptions

if TYPE_CHECKING:
    from exporter.part import Part
    from exporter.quantization.calibrate import CalibrationInput
    from exporter.quantization.calibration import Calibration

__all__ = ["Quantize"]


class Quantize(QuantizeOptions):
    """Explicit symmetric Q/DQ in the exported graph.

    It stands behind every other pass, and works on the graph, not on the torch module: `calibrate` decides, on calls that were
    recorded, and `apply` writes what was decided.
    """

    @property
    def decides(self) -> Mapping[str, Any]:
        """The options on which the calibration depends."""
        return self.model_dump(mode="json", exclude={"gate", "fallback", "calibration"})

    def config(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same config."""
        return source

    def __call__(self, part: Part) -> Part:
        """The torch module is not touched."""
        return part

    def calibrate(self, given: CalibrationInput) -> Calibration:
        """Decide for every layer how it is quantized.

        Raises:
            RecipeError: `keep` names no layer; too few calls were recorded.
            UnsupportedError: a layer has no range, or nothing can be quantized; names it.

        """
        from exporter.quantization.calibrate import calibrate  # noqa: PLC0415 - onnx

        return calibrate(self, given)

    def apply(self, graph: Path, calibration: Calibration, path: Path) -> int:
        """Write the quantized graph to `path`, its weights beside it; the number of its nodes.

        Raises:
            UnsupportedError: the calibration speaks of layers that the graph lacks, or a layer has no scale.

        """
        from exporter.quantization.calibrate import apply  # noqa: PLC0415 - onnx

        return apply(self, graph, calibration, path)
