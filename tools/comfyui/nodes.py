"""Two nodes: one opens a bundle, which is model, text encoders, VAE and sampler in one; the other draws with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from engines import Pipeline, plugins
from engines.bundle import Bundle
from engines.errors import T2IError
from engines.samplers import OnStep, Step

#: What a bundle says of itself, and whichever of its engines runs here.
_OWN = "the bundle's own"
_CATEGORY = "t2iexport"
_MOST = 16384
#: Wishes of which 0 says nothing.
_NUMBERS = ("steps", "guidance_scale", "width", "height", "strength")


class LoadT2IBundle:
    """Opens a bundle's engines; ComfyUI keeps them as long as it keeps the node's output."""

    CATEGORY = _CATEGORY
    RETURN_TYPES = ("T2I_BUNDLE",)
    RETURN_NAMES = ("bundle",)
    FUNCTION = "load"
    DESCRIPTION = "Opens a bundle of t2iexport: its networks, tokenizers and sampler. Needs no checkpoint."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """What the node takes."""
        return {
            "required": {
                "folder": ("STRING", {"default": "bundles/demo", "tooltip": "the bundle's folder"}),
                "backend": ([_OWN, *plugins.names("backends")], {"default": _OWN}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, folder: str) -> bool | str:  # noqa: N802 - ComfyUI's name
        """Say before anything runs what is wrong with the folder."""
        try:
            Bundle.open(folder)
        except T2IError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, folder: str, backend: str) -> str:  # noqa: N802 - ComfyUI's name
        """Another value where the bundle was built again: it is opened anew."""
        return f"{Bundle.open(folder).manifest.digest} {backend}"

    def load(self, folder: str, backend: str) -> tuple[Pipeline]:
        """Open it."""
        return (Pipeline.from_pretrained(folder, backend=None if backend == _OWN else backend),)


class SampleT2IBundle:
    """Draws with a bundle: prompts in, images out."""

    CATEGORY = _CATEGORY
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "sample"
    DESCRIPTION = "Draws with a bundle of t2iexport. 0 is the bundle's own steps, size and guidance; image i is that of seed + i."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """What the node takes; 0 is what the bundle says."""
        side = ("INT", {"default": 0, "min": 0, "max": _MOST, "step": 8})
        return {
            "required": {
                "bundle": ("T2I_BUNDLE",),
                "prompt": ("STRING", {"multiline": True, "dynamicPrompts": True}),
                "negative_prompt": ("STRING", {"multiline": True, "default": ""}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "generator": ([_OWN, "numpy", "torch-cpu", "torch-cuda"], {"tooltip": "whose noise a seed is"}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "among those that were compiled"}),
                "guidance_scale": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 100.0, "step": 0.1}),
                "width": side,
                "height": side,
                "images": ("INT", {"default": 1, "min": 1, "max": 64}),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "to start from, where the bundle has a VAE encoder"}),
                "mask": ("MASK", {"tooltip": "what of it is made anew"}),
                "strength": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            },
        }

    def sample(self, bundle: Pipeline, prompt: str, images: int, generator: str, **wishes: Any) -> tuple[Any]:  # noqa: ANN401
        """Draw; an image is float32 (images, height, width, 3) in [0, 1]."""
        import torch  # noqa: PLC0415 - ComfyUI brings it

        asked = {name: wishes[name] for name in _NUMBERS if wishes.get(name)}  # 0 is what the bundle says
        asked |= {"negative_prompt": wishes["negative_prompt"]} if wishes["negative_prompt"] else {}
        asked |= {name: _pictures(wishes[name]) for name in ("image", "mask") if wishes.get(name) is not None}
        asked |= {"generator": generator} if generator != _OWN else {}
        drawn = bundle.generate(prompt, images_per_prompt=images, seed=wishes["seed"], on_step=_progress(), **asked)
        return (torch.from_numpy(np.stack([np.asarray(one, np.float32) / 255 for one in drawn])),)


def _pictures(tensor: Any) -> list[Image.Image]:  # noqa: ANN401 - torch's
    """ComfyUI's IMAGE (images, height, width, 3) or MASK (images, height, width), in [0, 1], as pictures of 8 bits."""
    return [Image.fromarray((one.clip(0, 1) * 255).round().astype(np.uint8)) for one in np.asarray(tensor.cpu(), np.float32)]


def _progress() -> OnStep:
    """Move ComfyUI's bar, and stop where its user asked for that."""
    from comfy import model_management, utils  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - ComfyUI's

    bars: list[Any] = []

    def told(step: Step) -> None:
        model_management.throw_exception_if_processing_interrupted()
        bars.extend([] if bars else [utils.ProgressBar(step.total or step.index)])
        bars[0].update_absolute(step.index, step.total)

    return told


NODE_CLASS_MAPPINGS: dict[str, type] = {"LoadT2IBundle": LoadT2IBundle, "SampleT2IBundle": SampleT2IBundle}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {"LoadT2IBundle": "Load T2I bundle", "SampleT2IBundle": "Sample T2I bundle"}
