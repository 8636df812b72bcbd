"""What a bundle is asked for in this project's own words: prompts in, pictures or latents out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from engines import manifest
from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.guidance import Numbers
from engines.images.drawn import Drawn
from engines.lora.choice import Wish
from engines.request import Request
from engines.samplers import OnStep

if TYPE_CHECKING:
    from engines.parallel.picard import Picard

#: Arguments of `GenerateCall.generate` that say how, and not what.
_HOW = ("steps", "sampler", "height", "width", "noise", "on_step", "parallel")


class GenerateCall(ABC):
    """What may be asked of a pipeline; how it is made is `engines.pipeline.Pipeline`'s own.

    Attributes:
        bundle: what is played.

    """

    bundle: Bundle

    @abstractmethod
    def draw(
        self,
        asked: Request,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        height: int | None = None,
        width: int | None = None,
        noise: Iterable[np.ndarray] | None = None,
        on_step: OnStep | None = None,
        parallel: Picard | None = None,
        decoded: bool = True,
    ) -> Drawn:
        """Make what is asked for."""

    def generate(
        self,
        prompts: str | Sequence[str] = "",
        *,
        negative_prompt: str | Sequence[str] = "",
        prompt_2: str | Sequence[str] | None = None,
        negative_prompt_2: str | Sequence[str] | None = None,
        images_per_prompt: int = 1,
        seed: int | Sequence[int] = 0,
        generator: manifest.Generator | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        height: int | None = None,
        width: int | None = None,
        guidance_scale: Numbers | None = None,
        pag_scale: Numbers | None = None,
        inputs: Mapping[str, Any] | None = None,
        noise: Iterable[np.ndarray] | None = None,
        image: Image.Image | Sequence[Image.Image] | np.ndarray | None = None,
        mask: Image.Image | Sequence[Image.Image] | None = None,
        strength: float | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        on_step: OnStep | None = None,
        parallel: Picard | None = None,
        loras: Sequence[Wish] = (),
    ) -> list[Image.Image]:
        """Make pictures, `images_per_prompt` of each prompt in turn, from noise or from images.

        What may be a list holds one for all, one a prompt, or one a picture.

        Args:
            prompts: one text or several; none of a model that reads no text.
            negative_prompt: what to stay away from; only where guidance is classifier-free.
            prompt_2: what the second text encoder reads, where there are two, instead of the prompt.
            negative_prompt_2: what it reads instead of the negative prompt.
            images_per_prompt: pictures of each prompt.
            seed: of the first picture; picture i is that of seed + i alone, whatever the batch. -1 is a random one. A list holds
                one a picture, or one a prompt, whose pictures count on from it.
            generator: whose noise a seed is: `numpy`; or `torch-cpu` or `torch-cuda`, of which a seed makes the picture that it
                makes in diffusers with `torch.Generator(device).manual_seed(seed)`. By default what the bundle says.
            steps: of the sampler; must be among those that were compiled.
            sampler: instead of a compiled one, such as `adaptive:relative=0.1,absolute=0.1`; it chooses its own steps.
            height: in pixels, within `sizes`.
            width: in pixels, within `sizes`.
            guidance_scale: of the guidance that was compiled in. At 1 and below classifier-free guidance is off.
            pag_scale: of perturbed attention, where the bundle has it (`sampler.guidance.pag`). At 0 it is off.
            inputs: what the bundle takes by name: images (PIL), masks, numbers, and guidance scales by their own names.
            noise: draws to use instead of the seed's, float32 (pictures, channels, latent height, latent width) each;
                a sampler that draws once takes the bare array too. Those of condition parts come first, then the encoder's.
            image: to start from instead of noise alone; its size is the pictures', unless another is given, which it takes. With
                `denoising_start` it is latents, float32 (pictures, channels, latent height, latent width).
            mask: of the image's size: white is made anew, black keeps the image's pixels exactly.
            strength: how much of the image may change, above 0 and up to 1: the share of the steps that is taken. Left out
                it is 0.8, or 1 with a mask.
            denoising_start: share of the noise's way at which another run has stopped, whose latents `image` are; of a bundle
                that was built with `sampler.handover`.
            denoising_end: share of it at which to stop. What comes out is unfinished: `latents` returns it for another bundle.
            on_step: called after every step; what it raises ends the sampling and is raised here. A fused pipeline has none.
            parallel: evaluate several steps of a picture in one batch of the denoiser.
            loras: `style.safetensors:0.8` or (file, scale) each, of a bundle that was built for them; a scale may be a list too.

        Returns:
            Pictures, whose `info` says how they were made.

        Raises:
            UnsupportedError: the bundle cannot do what is asked; the text says what it can.

        """
        asked: dict[str, Any] = {
            "negative_prompt": negative_prompt, "prompt_2": prompt_2, "negative_prompt_2": negative_prompt_2,
            "images_per_prompt": images_per_prompt, "seed": seed, "generator": generator, "inputs": inputs,
            "guidance_scale": guidance_scale, "pag_scale": pag_scale, "image": image, "mask": mask, "strength": strength,
            "denoising_start": denoising_start, "denoising_end": denoising_end, "loras": loras,
        }  # fmt: skip
        how: dict[str, Any] = {"steps": steps, "sampler": sampler, "height": height, "width": width}
        how |= {"noise": noise, "on_step": on_step, "parallel": parallel}
        if not isinstance(prompts, str) and not len(prompts):
            return []
        return self._drawn_of(prompts, asked, how).pictures()

    def latents(self, prompts: str | Sequence[str] = "", **given: Any) -> np.ndarray:  # noqa: ANN401 - as `generate` types them
        """Sample as `generate`, which says what may be given, and decode nothing.

        Returns:
            Float32 (pictures, channels, latent height, latent width): with `denoising_end` what another bundle goes on from.

        """
        signature = inspect.signature(self.generate)
        asked = dict(signature.bind(prompts, **given).arguments)
        how = {name: asked.pop(name) for name in _HOW if name in asked}
        latents = self._drawn_of(asked.pop("prompts"), asked, how | {"decoded": False}).latents
        if latents is None:
            raise UnsupportedError("this bundle is one graph from prompt to picture, and has no latents. Build it stepped.")
        return latents

    def _drawn_of(self, prompts: str | Sequence[str], asked: Mapping[str, Any], how: Mapping[str, Any]) -> Drawn:
        """What `draw` makes of arguments of `generate`: those that say what is drawn, and those that say how."""
        rest = dict(asked)
        seconds = {name: rest.pop(name, None) for name in ("prompt_2", "negative_prompt_2")}
        usual: dict[str, Any] = {"negative_prompt": "", "seed": 0, "generator": None, "inputs": None}
        count = rest.pop("images_per_prompt", 1)
        return self.draw(Request.of(self.bundle.manifest, prompts, count, seconds=seconds, **{**usual, **rest}), **how)
