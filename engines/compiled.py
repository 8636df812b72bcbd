"""A bundle's compiled samplers: the one for so many steps, a size and a start, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines import plugins
from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.images.init_image import InitImage
from engines.images.init_latent import InitLatent
from engines.manifest import SamplerEntry
from engines.samplers import Sampler


class CompiledSamplers:
    """Finding a sampler's plugin and reading its file takes as long as a step of a small model, so each is kept."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._read: dict[tuple[Path, Any, Any, Any], Sampler] = {}

    def load(
        self, steps: int, height: int, width: int, original: InitImage | InitLatent | None = None, end: float | None = None
    ) -> Sampler:
        """Return the sampler of that many steps for a size in pixels, from noise, an image or a latent, that stops at `end`.

        Raises:
            UnsupportedError: there is none; says which there are.
            BundleError: its file is damaged.

        """
        entry = self._bundle.manifest.compiled(steps, height, width)
        if isinstance(original, InitLatent) or end is not None:
            return self._between(entry, original, end)
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

    def _between(self, entry: SamplerEntry, original: InitImage | InitLatent | None, end: float | None) -> Sampler:
        """The sampler that begins with a latent, or stops between two steps."""
        if entry.handover is None:
            raise UnsupportedError(
                f"the sampler of {entry.steps} steps takes all of them. For denoising_start and denoising_end build the "
                "bundle with `handover: true` in its recipe's sampler."
            )
        if isinstance(original, InitImage):
            raise UnsupportedError("denoising_end is of what starts from noise or from latents, and not from an image.")
        path = self._bundle.path(entry.handover)
        which = path, original and original.start, end, None
        if which not in self._read:
            self._read[which] = plugins.load("samplers", entry.kind).load_between(path, *which[1:3])
        return self._read[which]
