"""Which published model has the rest of a file that holds a part of one.

Apart from the kinds of files, which stages ask for: no bundle is built anew because one more architecture is known.
"""

from __future__ import annotations

from exporter.models import architectures
from exporter.models.kinds import NO_TEXT, UNET, Kind
from exporter.models.recognition import Shapes, outline, same


def told(kind: Kind, shapes: Shapes, architecture: str | None) -> str:
    """A line that names it, as far as the shapes of the file's UNet tell; empty where they do not."""
    found = outline(shapes) if kind in {UNET, NO_TEXT} else None
    names = [architecture] if found and architecture else same(found) if found else []
    published = [place for name in names if (place := architectures.hub(name))]
    return f"\n  Its UNet is of the kind of {' and '.join(published)}." if published else ""
