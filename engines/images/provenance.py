"""What a picture says of how it was made, and the wish that makes it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.errors import UnsupportedError
from engines.feed import digest_of
from engines.images.png import read_facts
from engines.manifest import Generator
from engines.strict import describe

if TYPE_CHECKING:
    from engines.bundle import Manifest
    from engines.images.init_image import InitImage
    from engines.images.init_latent import InitLatent

#: What a picture says of the bundle's own inputs, and of scales other than the usual one, begins so.
_INPUT = "input_"
#: What it says of its LoRAs.
_LORA = "lora_"


def facts(manifest: Manifest, engine: str) -> dict[str, str]:
    """What every picture of a bundle says of how it was made, in words that `ImageProvenance` reads back to the last bit."""
    told = {"bundle": manifest.name, "digest": manifest.model}
    told |= {"recipe_sha256": hashlib.sha256(manifest.recipe.encode()).hexdigest()}
    return told | ({"engine": engine} if engine else {})


class ImageProvenance(BaseModel):
    """The text in a picture, as far as it is needed to make it again; the rest is for readers.

    Attributes:
        digest: of the bundle, `Manifest.model`.
        steps: of a compiled sampler; where another one was asked for, there is `sampler` instead.
        height: in pixels; so is `width`.
        generator: whose noise the seed is; pictures of before there were several do not say, and are of numpy's.
        inputs: what else was fed: numbers as written, and of pictures the SHA-256.
        strength: where it was made from an image; then `image_sha256` is that of its pixels, and `mask_sha256` of the mask's.
        denoising_start: where it went on from a latent; then `image_sha256` is that of its numbers.
        denoising_end: where it was stopped.
        loras: scale, SHA-256 and name of the file of each LoRA.
        noise_sha256: of the draws that were used, where they were given; then there is no seed.
        parallel: how it was sampled in parallel, such as `window=32,tolerance=0.03,anderson=1`; empty where it was not.
        engine: backend and version; another one may answer otherwise in the last bits.

    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    digest: str
    prompt: str
    negative_prompt: str = ""
    prompt_2: str | None = None
    negative_prompt_2: str | None = None
    seed: int | None = Field(default=None, ge=0)
    generator: Generator = "numpy"
    steps: int | None = Field(default=None, ge=1)
    sampler: str | None = None
    guidance_scale: float | None = None
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    strength: float | None = None
    denoising_start: float | None = None
    denoising_end: float | None = None
    image_sha256: str | None = None
    mask_sha256: str | None = None
    noise_sha256: str | None = None
    inputs: dict[str, str] = Field(default_factory=dict)
    loras: tuple[str, ...] = ()
    parallel: str = ""
    engine: str = ""
    batch: str = ""

    @classmethod
    def read(cls, path: Path) -> ImageProvenance:
        """Read what a PNG, JPEG or WebP says; raise UnsupportedError when it is no picture of ours."""
        try:
            with Image.open(path) as opened:
                opened.load()
                text = read_facts(opened)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UnsupportedError(f"{path} cannot be read as a picture: {error}.") from error
        if "digest" not in text:
            raise UnsupportedError(f"{path} does not say how it was made. Name one of ours, unchanged and with its metadata.")
        try:
            inputs = {key.removeprefix(_INPUT): value for key, value in text.items() if key.startswith(_INPUT)}
            loras = tuple(value for key, value in sorted(text.items()) if key.startswith(_LORA))
            return cls.model_validate({**text, "inputs": inputs, "loras": loras})
        except ValidationError as error:
            raise UnsupportedError(f"{path} says in a damaged way how it was made:\n{describe(error)}") from error

    def wishes(self, manifest: Manifest) -> dict[str, Any]:
        """Arguments of `Pipeline.generate` that make the picture again with that bundle, but for its image, mask and noise.

        Raises:
            UnsupportedError: another bundle made it.

        """
        if self.digest != manifest.model:
            raise UnsupportedError(
                f"the picture was made by another bundle (digest {self.digest[:12]}…; this one, {manifest.name}, has "
                f"{manifest.model[:12]}…). Name the bundle that made it."
            )
        wishes = self.model_dump(include={"negative_prompt", "steps", "sampler", "guidance_scale", "height", "width", "strength"})
        others = {"prompt_2", "negative_prompt_2", "denoising_start", "denoising_end"}
        wishes |= self.model_dump(include=others, exclude_none=True)
        wishes |= {"prompts": (self.prompt,), "seed": self.seed or 0, "generator": self.generator}
        entries, scales = manifest.inputs, [scale.name for scale in manifest.guidance.scales]
        try:
            wishes["inputs"] = {
                name: int(text) if name in entries and entries[name].kind == "integer" else float(text)
                for name, text in self.inputs.items()
                if name in scales or (name in entries and not entries[name].digested)
            }
        except ValueError as error:
            raise UnsupportedError(f"the picture says in a damaged way what it was made with: {error}.") from error
        return wishes

    def compare_inputs(self, manifest: Manifest, inputs: Mapping[str, Any]) -> None:
        """Raise UnsupportedError unless the pictures among the bundle's `inputs` are those that the picture was made from."""
        for name in [name for name, entry in manifest.inputs.items() if entry.digested]:
            wanted, given = self.inputs.get(name), inputs.get(name)
            found = None if given is None else digest_of(given)
            if wanted == found:
                continue
            if wanted and found:
                raise UnsupportedError(f"this {name} is not the one that the picture was made from: its pixels differ.")
            verb = f"from a {name}. Give the same again" if wanted else f"without {name}. Leave it out"
            raise UnsupportedError(f"the picture was made {verb}.")

    def require_loras(self, given: Sequence[object]) -> None:
        """Raise UnsupportedError where the picture was made with LoRAs, and none are given."""
        if self.loras and not given:
            told = (text.split(" ", 2) for text in self.loras)
            asked = " ".join(f"--lora {name}:{scale} (SHA-256 {digest[:12]}…)" for scale, digest, name in told)
            raise UnsupportedError(f"the picture was made with LoRAs. Give them again: {asked}")

    def compare(self, original: InitImage | InitLatent | None) -> None:
        """Raise UnsupportedError unless the image and the mask are those that the picture was made from."""
        given = {} if original is None else original.facts()
        for name in ("image", "mask"):
            wanted, found = getattr(self, f"{name}_sha256"), given.get(f"{name}_sha256")
            if wanted == found:
                continue
            if wanted and found:
                raise UnsupportedError(f"this {name} is not the one that the picture was made from: its pixels differ.")
            raise UnsupportedError(
                f"the picture was made from an image{' and a mask' if name == 'mask' else ''}. Give the same again."
                if wanted
                else f"the picture was made without {name}. Leave it out."
            )

    def own_noise(self, noise: Sequence[np.ndarray] | None) -> np.ndarray | None:
        """Pick the picture's share, (draws, 1, C, H, W), out of the draws of the batch in which it was made.

        Raises:
            UnsupportedError: it was made from other noise, or from a seed.

        """
        if noise is None and self.noise_sha256 is None:
            return None
        if noise is None:
            raise UnsupportedError("the picture was made from noise that was given. Give the same again.")
        if self.noise_sha256 is None:
            raise UnsupportedError("the picture was made from a seed. Leave the noise out.")
        for index in range(min(map(len, noise))):
            running = hashlib.sha256()
            for draw in noise:
                running.update(np.ascontiguousarray(draw[index]).tobytes())
                if running.hexdigest() == self.noise_sha256:
                    return np.stack([each[index : index + 1] for each in noise])
        raise UnsupportedError("this noise is not what the picture was made from: its numbers differ.")

    def doubts(self, engine: str) -> list[str]:
        """Why the picture may not come out the same to the last bit: another engine, or company."""
        doubts = [f"picture {self.batch} made at once; alone it may differ in the last bits"] if self.batch else []
        if self.engine != engine:
            doubts.append(f"made by {self.engine or 'an unnamed engine'}, and this is {engine}; the last bits may differ")
        return doubts
