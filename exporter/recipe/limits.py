"""How far each stage may move the numbers: PSNR floors by stage and precision class, with the recipe's own in front."""

from __future__ import annotations

from collections.abc import Mapping

#: What a recipe says of one line: a PSNR floor in dB, or metric → bound.
Asked = float | Mapping[str, float]

#: PSNR floors in dB, by stage and precision class: the worst value measured, less a margin for other weights and machines.
#: docs/decisions/0004-limits.md has the measurements.
LIMITS: Mapping[str, Mapping[str, float]] = {
    "passes": {"fp32": 95.0, "fp16": 45.0, "bf16": 28.0},
    "onnx": {"fp32": 95.0, "fp16": 45.0, "int8-weights": 30.0, "bf16": 28.0, "int8": 25.0, "fp8": 25.0, "int4-weights": 20.0},
    "engine": {"fp32": 95.0, "fp16": 45.0, "int8-weights": 32.0, "bf16": 28.0, "int8": 28.0, "fp8": 28.0, "int4-weights": 26.0},
    "lora": {"fp32": 90.0, "fp16": 40.0, "int8-weights": 28.0, "bf16": 24.0, "int8": 22.0, "fp8": 22.0, "int4-weights": 16.0},
    "drift": {"fp32": 70.0, "fp16": 35.0, "int8-weights": 24.0, "bf16": 24.0, "int8": 20.0, "fp8": 20.0, "int4-weights": 16.0},
    "latent": {"fp32": 70.0, "fp16": 35.0, "int8-weights": 24.0, "bf16": 24.0, "int8": 20.0, "fp8": 20.0, "int4-weights": 16.0},
    "image": {"fp32": 60.0, "fp16": 35.0, "int8-weights": 24.0, "bf16": 24.0, "int8": 16.0, "fp8": 16.0, "int4-weights": 12.0},
    "table": {"fp32": 80.0, "fp16": 80.0, "bf16": 80.0},
}
#: Precision classes, from fine to coarse; the last four are those of quantized graphs.
COARSENESS = ("fp32", "fp16", "int8-weights", "bf16", "int8", "fp8", "int4-weights")
#: Key in a recipe's `checks.limits` → the line of the blame table that it limits.
STAGES = {
    "passes": "source → passes",
    "onnx": "passes → onnx",
    "engine": "onnx → engine",
    "lora": "fused → lora",
    "table": "source → table",
    "drift": "worst step",
    "latent": "final latent",
    "image": "image",
    "tokens": "source → tokens",
    "range": "half range",
}


class Limits:
    """Limits for one bundle, metric → bound: PSNR floors by stage and precision class, with the recipe's own in front.

    A recipe names a stage (`engine: 35`) or a stage of one part (`unet.engine: 35`), and where the limit is not one of PSNR, its
    metrics (`image: {ssim: 0.9}`), which then stand instead of the floor.
    """

    def __init__(self, own: Mapping[str, Asked]) -> None:
        self._own = {name: bounds(limit) for name, limit in own.items()}

    def __call__(self, part: str, stage: str, precision: str) -> dict[str, float]:
        """Limits of one line for one precision class."""
        return self._own.get(f"{part}.{stage}") or self._own.get(stage) or bounds(LIMITS[stage][precision])

    def of_remade(self, part: str) -> dict[str, float]:
        """Limits of `source → passes` for a network that was remade on purpose: only what the recipe says of that very part."""
        return self._own.get(f"{part}.passes", {})


def bounds(limit: Asked) -> dict[str, float]:
    """Metric → bound; a bare number is a floor of PSNR in dB."""
    return dict(limit) if isinstance(limit, Mapping) else {"psnr": limit}


def class_of(precision: str, form: str = "") -> str:
    """Precision class of a graph: its own, or a coarser one in which it was quantized."""
    quantized = form if form in COARSENESS else form.partition("-")[0]
    return max(precision, quantized or precision, key=COARSENESS.index)
