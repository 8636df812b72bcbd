"""Latent diffusion as diffusers runs it, fp32: what recordings and baselines ask of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from exporter.families.unets import chunked, tokens
from exporter.families.unets.perturbed import perturbed_first
from exporter.families.unets.shallow import cached, compared
from exporter.families.unets.steered import steered

if TYPE_CHECKING:
    from exporter.families import Saw
    from exporter.families.unets.tokens import ClipFamily


class LatentDiffusionReference:
    """The pipeline of a family of latent diffusion, its networks by the names of the parts that they become.

    Attributes:
        pipeline: the diffusers pipeline.
        scales: of guidance, at every call of the denoiser in the last `call`; empty where they are all alike.
        pag_scales: the same of perturbed attention.
        features: deep features that these calls left or were given; empty without caching.

    """

    def __init__(self, family: ClipFamily, pipeline: Any) -> None:  # noqa: ANN401 - a diffusers pipeline
        self._family = family
        self.pipeline = pipeline
        self.pipeline.set_progress_bar_config(disable=True)
        self.scales: Sequence[float] = ()
        self.pag_scales: Sequence[float] = ()
        self.features: Sequence[Tensor] = ()

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """Part → the module whose values are the part's; encoder and decoder are halves of one VAE."""
        found = {name: getattr(self.pipeline, name, None) for name, role in self._family.roles.items() if role != "shallow"}
        return {name: module or getattr(self.pipeline.vae, name.removeprefix("vae_")) for name, module in found.items()}

    @property
    def calls(self) -> Mapping[str, tuple[object, str]]:
        """Part → whose method the pipeline calls for it, and its name."""
        halves = {"vae_decoder": (self.pipeline.vae, "decode"), "vae_encoder": (self.pipeline.vae, "encode")}
        return {name: halves.get(name, (getattr(self.pipeline, name, None), "forward")) for name in self.components}

    def reordered(self, draws: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The noises of a run as the pipeline draws them, which is as a bundle does."""
        return list(draws)

    def conditions(self, fed: Mapping[str, np.ndarray], noise: np.ndarray) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Nothing: these pipelines start from pictures, and are not conditioned on any."""
        return {}

    def unpacked(self, kept: Tensor, shape: Sequence[int]) -> Tensor:  # noqa: ARG002 - of another family
        """A latent as the pipeline keeps it: as it is."""
        return kept

    def tokenize(
        self,
        prompts: Sequence[str],
        negative: str | None,
        fed: Mapping[str, np.ndarray] | None = None,  # noqa: ARG002 - text encoders take ids alone
    ) -> dict[str, np.ndarray]:
        """Token ids as the source's own tokenizers make them, int64 (batch, branches, length), by input port; weights too."""
        found = {}
        for tower, name in self._family.towers.items():
            ports = self._family.signature(tower).inputs
            texts = [text for prompt in prompts for text in (negative or "", prompt)[-int(ports[0].shape[1]) :]]
            both = tokens.rows(getattr(self.pipeline, name), texts, self._family.chunk(tower), self._family.recipe.prompts)
            found |= {
                port.name: array.reshape(len(prompts), *map(int, port.shape[1:]))
                for port, array in zip(ports, both, strict=False)  # not every tower takes weights
            }
        return found

    def encode(
        self,
        prompts: Sequence[str],
        negative: str | None,
        fed: Mapping[str, np.ndarray] | None = None,  # noqa: ARG002 - text encoders take ids alone
    ) -> dict[str, np.ndarray]:
        """Conditioning as the source's `encode_prompt` makes it, float32 (batch, branches, …), by port.

        diffusers joins the hidden states of several towers along their channels; here each tower has its own port.
        """
        states, pooled = self._ports
        branches = int(states[0].shape[1])
        asked = self._family.recipe.prompts
        if asked.chunks > 1 or asked.weights:
            zeros = negative is None and branches == 2 and getattr(self.pipeline.config, "force_zeros_for_empty_prompt", False)
            return chunked.encode(self._family, self.pipeline, self.tokenize(prompts, negative), zeros=zeros)
        skip = asked.clip_skip
        encoder = self.pipeline.text_encoder
        if skip is not None and not hasattr(encoder, "text_model"):
            # diffusers looks there for the final norm, which transformers 5 keeps in the tower itself. Not as a submodule.
            object.__setattr__(encoder, "text_model", encoder)
        found = self.pipeline.encode_prompt(
            prompt=list(prompts),
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=branches == 2,
            **({} if negative is None else {"negative_prompt": [negative] * len(prompts)}),
            **({} if skip is None else {"clip_skip": skip}),
        )
        # (positive, negative) states, then of SDXL the same of the pooled ones.
        stacks = [torch.stack([*found[index : index + 2]][::-1][-branches:], dim=1).float() for index in range(0, len(found), 2)]
        pieces = stacks[0].split([int(port.shape[-1]) for port in states], dim=-1)
        tensors = [*zip(states, pieces, strict=True), *zip(pooled, stacks[1:], strict=True)]
        return {port.name: tensor.numpy().copy() for port, tensor in tensors}

    def call(self, conditioning: Mapping[str, np.ndarray], guidance_scale: float | None, **options: Any) -> Any:  # noqa: ANN401
        """Run the pipeline, or the one that `options["pipeline"]` names, on conditioning that `encode` returned.

        Args:
            conditioning: by port.
            guidance_scale: None where the model takes none; diffusers runs it as at 1, guidance off, as all below.
            options: the pipeline's own arguments; `cache` stands in for the recipe's step caching, and `pag_scale` for its own.

        """
        states, pooled = self._ports
        joined = np.concatenate([conditioning[port.name] for port in states], axis=-1)
        named = {"prompt_embeds": joined, **({"pooled_prompt_embeds": conditioning[pooled[0].name]} if pooled else {})}
        arguments = {name: torch.from_numpy(array[:, -1].copy()) for name, array in named.items()}
        if joined.shape[1] == 2 and (guidance_scale or 0.0) > 1:
            arguments |= {f"negative_{name}": torch.from_numpy(array[:, 0].copy()) for name, array in named.items()}
        pipeline, sampler = options.pop("pipeline", self.pipeline), self._family.recipe.sampler
        sampler = sampler.model_copy(update={"cache": options.pop("cache", sampler.cache)})
        scale = 1.0 if guidance_scale is None else guidance_scale
        own = pipeline, self.pipeline.unet
        with steered(*own, sampler.guidance) as steps, cached(*own, sampler) as features:
            self.scales, self.pag_scales = steps.scales, steps.pag_scales
            asked = sampler.asked(options.get("num_inference_steps")) | options
            found = pipeline(**arguments, **asked, guidance_scale=scale)
        perturbs = asked.get("pag_scale", 0.0) > 0
        self.features = perturbed_first(features, len(joined)) if perturbs else features
        return found

    def reusing(self, depths: Sequence[int], reach: int, saw: Saw) -> AbstractContextManager[None]:
        """Within it, every call of the UNet is answered by its outermost layers too, on what earlier calls left."""
        return compared(self.pipeline.unet, depths, reach, saw)

    def from_image(
        self, pixels: np.ndarray, anew: np.ndarray | None, strength: float | None, size: Mapping[str, int]
    ) -> tuple[Any, dict[str, Any]]:
        """The pipeline of diffusers that plays the same networks from an image, and its own arguments.

        Args:
            pixels: uint8 (height, width, 3).
            anew: bool (height, width), True where pixels are made anew; None where all are.
            strength: share of the steps that are played.
            size: height and width in pixels.

        """
        # Its scheduler is set afterwards, as in `pipeline`; and it would tell of casts to float32 that change nothing here.
        diffusers.utils.logging.set_verbosity_error()
        if anew is None and self._family.partial_step == "spread":
            used = {name: module for name, module in self.pipeline.components.items() if name != "image_encoder"}
            played = diffusers.LatentConsistencyModelImg2ImgPipeline(**used, requires_safety_checker=False)
        else:
            kind = diffusers.AutoPipelineForImage2Image if anew is None else diffusers.AutoPipelineForInpainting
            played = kind.from_pipe(self.pipeline, scheduler=None)
            if pag := self._family.recipe.sampler.guidance.pag:  # of which diffusers hands on those of some pipelines alone
                played.set_pag_applied_layers(list(pag.layers))
        played.scheduler = self.pipeline.scheduler
        played.set_progress_bar_config(disable=True)
        own: dict[str, Any] = {"image": Image.fromarray(pixels, "RGB"), "strength": strength}
        if anew is not None:
            own["mask_image"] = Image.fromarray(anew.astype(np.uint8) * 255, "L")
            # Only UNets made for inpainting see the masked image; given, it is not encoded, which would draw.
            own |= {"masked_image_latents": torch.zeros(1, 4, 1, 1), **size}
        return played, own

    def encode_image(self, image: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """What the source's VAE encoder makes of pictures, float32 (B, C, h, w), scaled as the denoiser takes it.

        Args:
            image: float32 (B, height, width, 3) in [0, 1].
            noise: standard normal, of the latent's shape; a tiny VAE draws none.

        """
        vae = self.pipeline.vae
        found = vae.encode(torch.from_numpy(image * 2 - 1).permute(0, 3, 1, 2))
        if not hasattr(found, "latent_dist"):
            return (found.latents * vae.config.scaling_factor).numpy()
        latent = found.latent_dist.mean + found.latent_dist.std * torch.from_numpy(noise)
        if self._moments is not None:
            mean, std = self._moments
            latent = (latent - mean) / std
        return (latent * vae.config.scaling_factor).numpy()

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """What the source's decoder makes of a latent, as its pipeline unscales it: float32 (B, height, width, 3) in [0, 1]."""
        vae, found = self.pipeline.vae, torch.from_numpy(latent)
        # In the order in which the pipelines round: times the deviation, over the factor, plus the mean.
        if self._moments is not None:
            found = found * self._moments[1]
        found = found / vae.config.scaling_factor
        if self._moments is not None:
            found = found + self._moments[0]
        return (vae.decode(found, return_dict=False)[0] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()

    @property
    def _moments(self) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation of the latents by channel, of which diffusers needs both."""
        given = [getattr(self.pipeline.vae.config, f"latents_{name}", None) for name in ("mean", "std")]
        mean, std = (None if values is None else torch.tensor(values).view(1, -1, 1, 1) for values in given)
        return None if mean is None or std is None else (mean, std)

    @property
    def _ports(self) -> tuple[list[Any], list[Any]]:
        """Conditioning ports of hidden states (batch, branches, length, channels), and of pooled ones."""
        ports = [port for tower in self._family.towers for port in self._family.signature(tower).outputs]
        return [port for port in ports if len(port.shape) == 4], [port for port in ports if len(port.shape) == 3]
