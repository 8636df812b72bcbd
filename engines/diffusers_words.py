"""Words of diffusers' pipelines: those that have another meaning or none here, with what to do instead, and its generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np

from engines.errors import UnsupportedError
from engines.manifest import Generator
from engines.plugins import did_you_mean


@runtime_checkable
class _TorchGenerator(Protocol):
    """What is read of a `torch.Generator`."""

    def __init__(self, device: Any) -> None: ...  # noqa: ANN401 - torch's own

    @property
    def device(self) -> Any: ...  # noqa: ANN401 - torch's own

    def initial_seed(self) -> int: ...

    def manual_seed(self, seed: int, /) -> Self: ...

    def get_state(self) -> np.ndarray: ...


#: What a callback may ask for.
TENSORS = ("latents", "pred_original_sample")

_LORA = "a LoRA is fused by the recipe's model.loras, or given to the call, loras=[...], by a bundle of components.unet.lora"
_COMPILED = "is compiled into the bundle; build one with the recipe's {} instead"
_SIZES = "is inside the graphs, of the picture's own size"
_EMBEDDED = "is made by the bundle's own text encoders; give a prompt"
_DEVICES = "is the backend's; say it when the bundle is opened, as in from_pretrained(path, backend='onnxruntime', device=0)"


@dataclass(frozen=True)
class Word:
    """An argument that has no counterpart: what to do instead, and the values that ask for nothing."""

    instead: str
    nothing: tuple[Any, ...] = (None,)


#: Arguments of a call.
CALLING: Mapping[str, Word] = {
    "timesteps": Word(_COMPILED.format("sampler.timesteps")),
    "sigmas": Word(_COMPILED.format("sampler.sigmas")),
    "eta": Word(_COMPILED.format("sampler.step"), (None, 0)),
    "clip_skip": Word(_COMPILED.format("prompts.clip_skip")),
    "max_sequence_length": Word(_COMPILED.format("prompts")),
    "guidance_rescale": Word(_COMPILED.format("sampler.guidance.rescale"), (None, 0)),
    "pag_scale": Word("is of perturbed attention, and this bundle has none; sampler.guidance.pag in its recipe has", (None, 0)),
    "pag_adaptive_scale": Word(_COMPILED.format("sampler.guidance.pag.adaptive"), (None, 0)),
    "true_cfg_scale": Word(_COMPILED.format("sampler.guidance"), (None, 1)),
    "original_size": Word(_SIZES),
    "target_size": Word(_SIZES),
    "negative_original_size": Word(_SIZES),
    "negative_target_size": Word(_SIZES),
    "crops_coords_top_left": Word(_SIZES, (None, (0, 0), [0, 0])),
    "negative_crops_coords_top_left": Word(_SIZES, (None, (0, 0), [0, 0])),
    "prompt_embeds": Word(_EMBEDDED),
    "negative_prompt_embeds": Word(_EMBEDDED),
    "pooled_prompt_embeds": Word(_EMBEDDED),
    "negative_pooled_prompt_embeds": Word(_EMBEDDED),
    "prompt_3": Word("is read by no text encoder of its own here; every one beyond the second reads the prompt"),
    "negative_prompt_3": Word("is read by no text encoder of its own here; every one beyond the second reads negative_prompt"),
    "ip_adapter_image": Word("is for an IP-Adapter, and this bundle has none; model.ip_adapter in its recipe would name one"),
    "ip_adapter_image_embeds": Word("is what a bundle makes itself; give ip_adapter_image, if it was built with an IP-Adapter"),
    "cross_attention_kwargs": Word(f"has no part here; {_LORA}", (None, {})),
    "joint_attention_kwargs": Word(f"has no part here; {_LORA}", (None, {})),
    "attention_kwargs": Word(f"has no part here; {_LORA}", (None, {})),
    "masked_image_latents": Word("is made of image and mask_image"),
    "padding_mask_crop": Word("is not done here; crop image and mask_image before"),
    "callback": Word("is old; use callback_on_step_end"),
    "callback_steps": Word("is old; use callback_on_step_end", (None, 1)),
}

#: Arguments of `from_pretrained`.
OPENING: Mapping[str, Word] = {
    "torch_dtype": Word("is chosen when the bundle is built: precision in the recipe"),
    "dtype": Word("is chosen when the bundle is built: precision in the recipe"),
    "variant": Word("is chosen when the bundle is built: model.variant in the recipe"),
    "revision": Word("is chosen when the bundle is built: model.revision in the recipe"),
    "use_safetensors": Word("is about weights, and a bundle has engines", (None, True)),
    "local_files_only": Word("is always so: a bundle is a folder", (None, True)),
    "low_cpu_mem_usage": Word("is chosen when the bundle is built: low_memory in the recipe", (None, True)),
    "safety_checker": Word("is not part of a bundle; look at the pictures with your own"),
    "requires_safety_checker": Word("is not part of a bundle; look at the pictures with your own", (None, False)),
    "custom_pipeline": Word("would be code, and a bundle holds none"),
    "device_map": Word(_DEVICES),
    "provider": Word(_DEVICES),
    "providers": Word(_DEVICES),
    "scheduler": Word(_COMPILED.format("sampler.scheduler")),
    "enable_pag": Word(_COMPILED.format("sampler.guidance.pag"), (None, False)),
    "pag_applied_layers": Word(_COMPILED.format("sampler.guidance.pag.layers")),
    "unet": Word(_COMPILED.format("passes")),
    "vae": Word(_COMPILED.format("model.vae")),
    "text_encoder": Word(_COMPILED.format("model.source")),
    "tokenizer": Word(_COMPILED.format("model.source")),
}

#: Attributes and methods.
_ATTRIBUTES: Mapping[str, str] = {
    "to": f"the device {_DEVICES}",
    "scheduler": f"the sampler {_COMPILED.format('sampler')}",
    "load_lora_weights": _LORA,
    "fuse_lora": _LORA,
    "set_adapters": _LORA,
    "load_textual_inversion": f"an embedding {_COMPILED.format('model.embeddings')}",
    "load_ip_adapter": f"an IP-Adapter {_COMPILED.format('model.ip_adapter')}",
    "set_ip_adapter_scale": "give ip_adapter_scale with the call",
    "save_pretrained": "a bundle is copied as a folder",
    "set_progress_bar_config": "there is no progress bar; use callback_on_step_end",
    "safety_checker": "it is not part of a bundle; look at the pictures with your own",
}
_NETWORKS = ("unet", "transformer", "vae", "image_processor", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


def instead(name: str) -> str:
    """What to do where diffusers has an attribute of that name; empty where it is none of diffusers'."""
    if name.startswith(("enable_", "disable_")):
        return "how engines use memory is chosen when the bundle is built: low_memory and the targets' options in the recipe"
    if name in _NETWORKS:
        return "networks are engines; bundle.manifest.parts describes them, and encode, sample and decode run them"
    return _ATTRIBUTES.get(name, "")


def known(given: Mapping[str, Any], table: Mapping[str, Word], own: Sequence[str] | None = None) -> dict[str, Any]:
    """What was given, without what asks for nothing; of other names only those that are the bundle's `own`, where that is said.

    Raises:
        UnsupportedError: one has no counterpart here, or nobody knows it.

    """
    kept: dict[str, Any] = {}
    for name, value in given.items():
        word = table.get(name)
        if own is not None and name in own:
            kept[name] = value
        elif word is None:
            if own is not None:
                raise UnsupportedError(f"no argument {name!r}{did_you_mean(name, [*own, *table])}")
            kept[name] = value
        elif not any(_same(value, one) for one in word.nothing):
            raise UnsupportedError(f"{name} {word.instead}.")
    return kept


def _same(value: Any, one: Any) -> bool:  # noqa: ANN401 - what users of diffusers pass: an array has another ==
    return value is one or (isinstance(value, int | float | tuple | list | dict) and value == one)


def seeds(generator: Any) -> tuple[int | list[int], Generator | None, bool]:  # noqa: ANN401 - what users of diffusers have
    """The seed, or one each, of a generator as diffusers takes it; whose noise it is; and whether all draw from one stream.

    Raises:
        UnsupportedError: it is neither a seed nor a `torch.Generator`, nor a list of either; something was drawn from it; or it
            is of a device whose noise is not known.

    """
    if generator is None:
        return -1, None, False
    each = list(cast("Sequence[Any]", generator)) if isinstance(generator, list | tuple) else [generator]
    found = [_seed(one) for one in each]
    if len({whose for _, whose in found}) != 1:
        raise UnsupportedError("generator: these are of several kinds, or none. Give seeds alone, or generators of one device.")
    numbers, whose = [number for number, _ in found], found[0][1]
    if isinstance(generator, list | tuple):
        return numbers, whose, False
    return numbers[0], whose, whose is not None


def _seed(generator: Any) -> tuple[int, Generator | None]:  # noqa: ANN401 - what users of diffusers have
    if hasattr(generator, "__index__") and not isinstance(generator, bool):
        return int(generator), None
    if not isinstance(generator, _TorchGenerator):
        raise UnsupportedError(f"generator is a {type(generator).__name__}; give a seed, a torch.Generator, or a list of either.")
    device = str(getattr(generator.device, "type", generator.device))
    whose: dict[str, Generator] = {"cpu": "torch-cpu", "cuda": "torch-cuda"}
    if device not in whose:
        raise UnsupportedError(f"generator is of {device}, whose noise is not known here; give one of {' or '.join(whose)}.")
    seed = int(generator.initial_seed())
    if np.array_equal(type(generator)(generator.device).manual_seed(seed).get_state(), generator.get_state()):
        return seed, whose[device]
    raise UnsupportedError("generator was drawn from before, and here every draw begins at its seed. Give a new one, or a seed.")
