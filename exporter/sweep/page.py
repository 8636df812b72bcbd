"""The report as one HTML file: the page, its style, its program, the data and the pictures, with nothing to be fetched."""

from __future__ import annotations

import base64
import html as escapes
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STATIC = Path(__file__).parent / "static"
_PROGRAM = ("chart.js", "table.js", "details.js", "page.js")


def html(found: Mapping[str, Any], pictures: Path) -> str:
    """Assemble the page; pictures are read from the folder that they lie in."""
    page = (_STATIC / "index.html").read_text(encoding="utf-8")
    names = [name for point in found["points"] for name in point["pictures"]]
    images = {name: _uri(pictures / name) for name in names}
    # What would end the script ends it inside of a string, too.
    data = json.dumps({**found, "images": images}, ensure_ascii=False).replace("<", "\\u003c")
    program = "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in _PROGRAM)
    parts = {
        "title": escapes.escape(found["name"]),
        "style": (_STATIC / "style.css").read_text(encoding="utf-8"),
        "data": data,
        "program": program,
    }
    # In one pass, so that nothing in the data is taken for a place.
    pieces = page.split("%%")
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def _uri(picture: Path) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture.read_bytes()).decode()}"
