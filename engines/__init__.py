"""Run time: plays a bundle. Never imports torch, diffusers, transformers, onnx, nor `exporter`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines.pipeline import Pipeline

__all__ = ["Pipeline"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """Load what is asked for, so that `import engines` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engines.pipeline import Pipeline  # noqa: PLC0415 - it imports numpy and Pillow

    return Pipeline
