"""diffusers' idiom: a bundle opened and called as diffusers' pipelines are. What has no counterpart is refused by name."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Self

import numpy as np
from PIL import Image

from engines import diffusers_words as words
from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.guidance import USUAL, Numbers
from engines.images import noises
from engines.images.drawn import Drawn
from engines.lora.choice import Wish
from engines.request import Request
from engines.samplers import OnStep, Step
from engines.signature import still

#: One picture, or one each.
Images = Image.Image | Sequence[Image.Image]
#: `callback(pipeline, step, timestep, tensors)`, as diffusers calls it, the step counted from 0.
OnStepEnd = Callable[[Any, int, float | None, dict[str, np.ndarray | None]], Mapping[str, Any] | None]


class DiffusersOutput(NamedTuple):
    """Images as diffusers' pipelines return them: by name, as `output[0]`, and as a tuple of one where `return_dict` is false.

    Attributes:
        images: pictures; or float32 (pictures, height, width, 3) in [0, 1] of `np`, or final latents, float32 (pictures,
            channels, latent height, latent width), of `latent`.

    """

    images: list[Image.Image] | np.ndarray


class DiffusersCall(ABC):
    """What makes a pipeline one in diffusers' idiom; the rest is `engines.pipeline.Pipeline`'s own.

    Attributes:
        bundle: what is played.
        close: closes the engines of a pipeline that `from_pretrained` opened; those of `open` close with their `with`.

    """

    bundle: Bundle
    close: Callable[[], Any] = staticmethod(lambda: None)

    @classmethod
    @abstractmethod
    def open(cls, path: Path | str, backend: str | None = None, **options: Any) -> AbstractContextManager[Self]:  # noqa: ANN401
        """Open a bundle for the time of a `with`."""

    @abstractmethod
    def draw(
        self,
        asked: Request,
        *,
        steps: int | None = None,
        height: int | None = None,
        width: int | None = None,
        noise: noises.Drawing | None = None,
        on_step: OnStep | None = None,
        decoded: bool = True,
    ) -> Drawn:
        """Make what is asked for."""

    @classmethod
    def from_pretrained(cls, path: Path | str, *, backend: str | None = None, **options: Any) -> Self:  # noqa: ANN401
        """Open a bundle until the pipeline is closed, or nobody has it any more.

        Args:
            path: the bundle's folder.
            backend: which of its engines; by default onnxruntime's, or else the first whose library is here.
            options: fields of the backend, instead of those that its engines were built with.

        Raises:
            BundleError, MissingDependency: as `Pipeline.open`.
            UnsupportedError: as `Pipeline.open`; or an option of diffusers has no counterpart here.

        """
        stack = ExitStack()
        pipeline = stack.enter_context(cls.open(path, backend, **words.known(options, words.OPENING)))
        pipeline.close = weakref.finalize(pipeline, stack.close)
        return pipeline

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_2: str | Sequence[str] | None = None,
        negative_prompt_2: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: Numbers | None = None,
        num_images_per_prompt: int = 1,
        generator: Any = None,  # noqa: ANN401 - a seed, or torch's own class, which is not imported here
        latents: Any = None,  # noqa: ANN401 - an array, or a tensor that numpy can read
        image: Images | np.ndarray | None = None,
        mask_image: Images | None = None,
        strength: float | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        loras: Sequence[Wish] = (),
        output_type: Literal["pil", "np", "latent"] = "pil",
        return_dict: bool = True,  # noqa: ARG002 - the output is both
        callback_on_step_end: OnStepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **others: Any,  # noqa: ANN401 - the bundle's own inputs, and what is refused
    ) -> DiffusersOutput:
        """Make pictures, by the names that diffusers gives what is asked for. What is left out is as the bundle says.

        Args:
            prompt: one text or several.
            negative_prompt: what to stay away from; only where guidance is classifier-free.
            prompt_2: what the second text encoder reads instead, where there are two.
            negative_prompt_2: what it reads instead of the negative prompt.
            height: in pixels.
            width: in pixels.
            num_inference_steps: among those that were compiled.
            guidance_scale: one for all, one a prompt, or one a picture.
            num_images_per_prompt: pictures of each prompt.
            generator: a seed, whose noise is the bundle's choice; picture i is that of seed + i. Or a `torch.Generator` that
                nothing was drawn from, of a CPU or of CUDA, whose noise it then is; it is read and not moved on. Of one for
                several pictures all draw from its one stream, as in diffusers. Or a list of either. None: a random seed.
            latents: the first noise, float32 (pictures, channels, latent height, latent width).
            image: to start from; strength says how much of it may change, and `mask_image`, white, where.
            mask_image: of the image's size; what is black keeps the image's pixels exactly.
            strength: above 0 and up to 1.
            denoising_start: where another pipeline has stopped; `image` is then its latents, an array or a tensor.
            denoising_end: where to stop, for another pipeline to go on.
            loras: as `Pipeline.generate` takes them; diffusers has methods for that.
            output_type: `pil` pictures, `np` arrays, or `latent`, nothing decoded.
            return_dict: makes no difference.
            callback_on_step_end: called after every step; what it raises ends the sampling (`engines.samplers.Cancelled` is made
                for that). It may read what it is given, and change nothing.
            callback_on_step_end_tensor_inputs: what it is given: `latents`, as the denoiser took them, scaled; and
                `pred_original_sample`, the clean latents that its answer points to, or None where the sampler cannot say.
            others: inputs of the bundle by their names.

        Raises:
            UnsupportedError: the bundle cannot do what is asked; the text says what it can.

        """
        about = self.bundle.manifest
        if output_type not in ("pil", "np", "latent"):
            raise UnsupportedError(f"output_type {output_type!r}: there are pil, np (float32 arrays) and latent.")
        own = [*about.inputs, *(scale.name for scale in about.guidance.scales if scale.name != USUAL)]
        inputs = words.known(others, words.CALLING, own)
        if denoising_start is not None and not isinstance(image, Image.Image | list | tuple | None):
            image = np.asarray(image, np.float32)
        shown = None if denoising_start is not None else image  # latents are looked at where they are taken
        for name, given in (("image", shown), ("mask_image", mask_image)):
            for one in [given] if not isinstance(given, list | tuple) else given:
                if one is not None and not isinstance(one, Image.Image):
                    raise UnsupportedError(f"{name} is a {type(one).__name__}; give a PIL image, or a list of them.")
        seed, whose, one_stream = words.seeds(generator)
        asked = Request.of(
            about,
            prompt or "",
            num_images_per_prompt,
            negative_prompt=negative_prompt or "",
            seconds={"prompt_2": prompt_2, "negative_prompt_2": negative_prompt_2},
            seed=seed,
            generator=whose,
            inputs=inputs,
            guidance_scale=guidance_scale,
            image=image,
            mask=mask_image,
            strength=strength,
            denoising_start=denoising_start,
            denoising_end=denoising_end,
            loras=loras,
        )
        noise = None
        if latents is not None:
            noise = self._from(np.asarray(latents, np.float32), asked)
        elif one_stream and len(asked.prompts) > 1:
            noise = noises.stream(asked.seeds[0], asked.generator)
        steps = about.defaults.steps if num_inference_steps is None else num_inference_steps
        on_step = None
        if callback_on_step_end is not None:
            if about.fused(steps):
                raise UnsupportedError(
                    "callback_on_step_end: this bundle is one graph from prompt to picture, so nothing is seen between its "
                    "steps. Leave it out, or build the bundle with pipeline: stepped."
                )
            own_names: Sequence[str] | None = getattr(callback_on_step_end, "tensor_inputs", None)  # a diffusers.PipelineCallback
            on_step = self._told(callback_on_step_end, own_names or callback_on_step_end_tensor_inputs)
        decoded = output_type != "latent"
        drawn = self.draw(asked, steps=steps, height=height, width=width, noise=noise, on_step=on_step, decoded=decoded)
        arrays = drawn.images if decoded else drawn.latents
        return DiffusersOutput(drawn.pictures() if output_type == "pil" or arrays is None else arrays)

    def _from(self, latents: np.ndarray, asked: Request) -> noises.Drawing:
        """The first noise as given, and what is drawn after it from the pictures' seeds."""
        about = self.bundle.manifest
        others = [name for name in about.encoding_order() if about.parts[name].signature.port("noise")]
        if asked.start["image"] is not None or others:
            raise UnsupportedError(
                f"latents are the first noise of all, and before it {others[0] if others else 'the image'} has some. "
                "Leave them out, or use Pipeline.generate(noise=…) with every draw."
            )
        return noises.after(latents, asked.seeds, asked.generator)

    def _told(self, callback: OnStepEnd, names: Sequence[str]) -> OnStep:
        """Call back as diffusers does, and refuse what a callback cannot have, or change."""
        for name in names:
            if name not in words.TENSORS:
                raise UnsupportedError(
                    f"callback_on_step_end_tensor_inputs: {name} is inside the engines; there are: {', '.join(words.TENSORS)}."
                )

        def told(step: Step) -> None:
            found = {"latents": step.latent, "pred_original_sample": step.preview}
            given = {name: array if (array := found[name]) is None else still(array) for name in names}
            returned = callback(self, step.index - 1, step.timestep, dict(given)) or {}
            if changed := sorted(name for name, value in returned.items() if value is not given.get(name)):
                raise UnsupportedError(
                    f"callback_on_step_end returned another {changed[0]}; a compiled sampler goes on from its own. Return {{}}."
                )

        return told

    @property
    def _interrupt(self) -> bool:
        """What a callback sets in diffusers to end the sampling."""
        return False

    @_interrupt.setter
    def _interrupt(self, _value: bool) -> NoReturn:
        raise UnsupportedError("_interrupt: raise engines.samplers.Cancelled in the callback instead; it reaches your own code.")

    if not TYPE_CHECKING:  # to a type checker every name would be there

        def __getattr__(self, name: str) -> NoReturn:
            """Say of what diffusers' pipelines have what to do instead."""
            instead = words.instead(name)
            raise AttributeError(f"{name}: {instead}." if instead else f"{type(self).__name__} has no {name!r}")
