"""A bundle's compiled samplers: the one for so many steps, a size and a start, read once."""

from __future__ import annotations

from pathlib import Path

from engines import plugins
from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.images.init_image import InitImage
from engines.samplers import Sampler


class CompiledSamplers:
    """Finding a sampler's plugin and reading its file takes as long as a step of a small model, so each is kept."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._read: dict[tuple[Path, int | None, bool | None, float | None], Sampler] = {}

    def load(self, steps: int, height: int, width: int, original: InitImage | None = None) -> Sampler:
        """Return the sampler of that many steps for a size in pixels, from noise or from an image.

        Raises:
            UnsupportedError: there is none; says which there are.
            BundleError: its file is damaged.

        """
        entry = self._bundle.manifest.compiled(steps, height, width)
        if original and entry.image is None:
            raise UnsupportedError(
                f"the sampler of {steps} steps was built without tables that start from an image. Build the bundle again."
            )
        path = self._bundle.path((original and entry.image) or entry.file)
        partial = self._bundle.manifest.partial_step
        skipped = original and original.start(steps, partial)
        which = path, skipped, original and original.alone, original.strength if original and partial == "spread" else None
        if which not in self._read:
            kind = plugins.load("samplers", entry.kind)
            if original is None or skipped is None:
                self._read[which] = kind.load(path)
            else:
                self._read[which] = kind.load_start(path, skipped, alone=original.alone, strength=original.strength)
        return self._read[which]
