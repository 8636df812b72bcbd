"""Manifests of earlier formats, said as the newest format says it; what is odd stays, for the schema to refuse."""

from __future__ import annotations

from typing import Any, cast

from engines.guidance import USUAL


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a manifest of any format as the schema has it.

    Before format 4 guidance had one scale, `{"mode": …, "scale": …}`. What formats 2 and 3 added may be left out in all.
    """
    guidance = content.get("guidance")
    if content["format"] >= 4 or not isinstance(guidance, dict) or "scales" in guidance:
        return content
    rest = dict(cast("dict[str, Any]", guidance))
    scale = rest.pop("scale", None)
    off = 1.0 if rest.get("mode") == "classifier_free" else None
    scales = [] if scale is None else [{"name": USUAL, "default": scale, "off": off}]
    return {**content, "guidance": {**rest, "scales": scales}}
