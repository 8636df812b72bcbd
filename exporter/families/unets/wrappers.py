"""Networks of latent diffusion under the uniform contract: float32 and int64 at the boundary, half precision a private matter.

Arithmetic follows StableDiffusionPipeline and StableDiffusionXLPipeline of diffusers; every deviation says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from engines.guidance import PERTURBED, USUAL
from exporter.families.unets.perturbed import Branches, effective, perturbing
from exporter.families.unets.shallow import shallow, watched
from exporter.part import DEEP

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from exporter.recipe.sampling import GuidanceOptions


class _GuidedUNet(nn.Module):
    """UNet with guidance inside, whatever its conditioning is.

    Args:
        unet: diffusers' UNet2DConditionModel.
        guidance: of a recipe: whether guidance_scale is an input of the network (`timestep_cond`) instead of a mix of two
            branches; how far a mix gets the standard deviation of the positive branch back; what a perturbed branch is.
        depth: of the deep feature that a call leaves as a second output; None leaves none.

    """

    def __init__(self, unet: nn.Module, guidance: GuidanceOptions, *, depth: int | None = None) -> None:
        super().__init__()
        self.unet = cast("UNet2DConditionModel", unet)
        self.guidance, self.depth = guidance, depth

    def texts(self, latent: Tensor, given: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor] | None]:
        """Hidden states (batch, branches, length, channels), None where they are not given, and further conditioning."""
        raise NotImplementedError

    def scaled(self, *scales: Tensor | None) -> dict[str, Tensor]:
        """Scales by name, of those that are given in the order of the network's guidance."""
        names = [*([USUAL] if self.guidance.mode != "none" else []), *([PERTURBED] if self.guidance.pag else [])]
        return {name: scale for name, scale in zip(names, scales, strict=False) if scale is not None}

    def guided(self, latent: Tensor, timestep: Tensor, given: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Answer on conditioning and scales by name; on a deep feature among it with the outermost layers alone."""
        scales = {name: given[name] for name in (USUAL, PERTURBED) if name in given}
        given = {name: each for name, each in given.items() if name not in scales}
        branches, dtype = next(iter(given.values())).shape[1], self.unet.dtype
        states, added = self.texts(latent, given)
        arguments = {
            "sample": _branched(latent, branches).to(dtype),
            "timestep": _branched(timestep, branches),
            "encoder_hidden_states": None if states is None else states.flatten(0, 1).to(dtype),
            "timestep_cond": self._condition(timestep, scales),
            "added_cond_kwargs": added,
        }
        with self._perturbing(latent, branches, scales):
            if DEEP in given:
                output = shallow(self.unet, self.depth or 0, given[DEEP].flatten(0, 1).to(dtype), **arguments)
                return self._mixed(output, latent, timestep, branches, scales)
            if self.depth is None:
                output = self.unet(**arguments, return_dict=False)[0]
                return self._mixed(output, latent, timestep, branches, scales)
            with watched(self.unet, self.depth) as kept:
                output = self.unet(**arguments, return_dict=False)[0]
        mixed = self._mixed(output, latent, timestep, branches, scales)
        return mixed, kept[0].float().unflatten(0, (latent.shape[0], branches))

    def _perturbing(self, latent: Tensor, branches: int, scales: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        if self.guidance.pag is None:
            return nullcontext()
        chosen = Branches(latent, branches, self._free(scales)).perturbed
        return perturbing(self.unet, self.guidance.pag.layers, chosen)

    def _free(self, scales: Mapping[str, Tensor]) -> Tensor | None:
        """The scale of classifier-free guidance, where there is such."""
        return _asked(scales, USUAL) if self.guidance.mode == "classifier_free" else None

    def _mixed(self, output: Tensor, latent: Tensor, timestep: Tensor, branches: int, scales: Mapping[str, Tensor]) -> Tensor:
        output, pag, share = output.float(), self.guidance.pag, self.guidance.rescale
        if pag is not None:
            scale, free = effective(_asked(scales, PERTURBED), timestep, pag), self._free(scales)
            mixed, positive = Branches(latent, branches, free).mixed(output, scale)
            if free is None or not share:
                return mixed
            return torch.where((free > 1).reshape(-1, 1, 1, 1), _rescaled(mixed, positive, share), mixed)
        if branches == 1:
            return output
        both = output.unflatten(0, (latent.shape[0], branches))
        negative, positive = both[:, 0], both[:, -1]
        mixed = negative + _asked(scales, USUAL).reshape(-1, 1, 1, 1) * (positive - negative)
        return _rescaled(mixed, positive, share) if share else mixed

    def _condition(self, timestep: Tensor, scales: Mapping[str, Tensor]) -> Tensor | None:
        width = self.unet.config["time_cond_proj_dim"]
        if width is None:
            return None
        # A network that was made for embedded guidance and is used without gets scale 1, as the pipelines give it.
        excess = _asked(scales, USUAL) - 1 if self.guidance.mode == "embedded" else torch.zeros_like(timestep)
        return sinusoid(excess, width).to(self.unet.dtype)


class Denoiser(_GuidedUNet):
    """UNet with guidance inside: latent (B, C, H, W), timestep (B,), conditioning (B, branches, …) → latent's shape.

    With a depth it also returns its deep feature, (B, branches, C', H, W).
    """

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        prompt_embeds: Tensor,
        scale: Tensor | None = None,
        second_scale: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict noise, velocity or sample, whichever the network was trained for; scales come in the order of its guidance."""
        return self.guided(latent, timestep, {"prompt_embeds": prompt_embeds, **self.scaled(scale, second_scale)})

    def texts(self, latent: Tensor, given: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor] | None]:  # noqa: ARG002
        """The hidden states alone."""
        return given.get("prompt_embeds"), None


class DenoiserXL(_GuidedUNet):
    """UNet that also takes the pooled text and the picture's size, which it reads off the latent.

    Args:
        unet: diffusers' UNet2DConditionModel with `text_time` embedding.
        guidance: as for `Denoiser`.
        factor: pixels per latent cell.
        depth: as for `Denoiser`.

    """

    def __init__(self, unet: nn.Module, guidance: GuidanceOptions, *, factor: int, depth: int | None = None) -> None:
        super().__init__(unet, guidance, depth=depth)
        self.factor = factor

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        prompt_embeds: Tensor,
        prompt_embeds_2: Tensor,
        pooled_prompt_embeds: Tensor,
        scale: Tensor | None = None,
        second_scale: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict as `Denoiser` does."""
        given = {"prompt_embeds": prompt_embeds, "prompt_embeds_2": prompt_embeds_2, "pooled_prompt_embeds": pooled_prompt_embeds}
        return self.guided(latent, timestep, given | self.scaled(scale, second_scale))

    def texts(self, latent: Tensor, given: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor] | None]:
        """The towers' hidden states joined; pooled text and sizes."""
        # Pooled text stays float32: the UNet joins it with float32 time embeddings by torch.concat, which ONNX cannot do
        # across types, and casts the result to its own type right after.
        pooled = given["pooled_prompt_embeds"]
        added = {"text_embeds": pooled.flatten(0, 1), "time_ids": _branched(self._sizes(latent), pooled.shape[1])}
        towers = [given[name] for name in ("prompt_embeds", "prompt_embeds_2") if name in given]
        return torch.cat(towers, dim=-1) if towers else None, added

    def _sizes(self, latent: Tensor) -> Tensor:
        """Original size, crop and target size, (B, 6) in pixels: the picture is its own original, not cropped."""
        ones = torch.ones(latent.shape[0], device=latent.device)
        height, width = (ones * (latent.shape[axis] * self.factor) for axis in (2, 3))
        zero = torch.zeros_like(height)
        return torch.stack([height, width, zero, zero, height, width], dim=1)


class ShallowDenoiser(nn.Module):
    """The outermost layers of a denoiser, on the deep feature that a whole call left, under the same contract.

    Args:
        whole: the denoiser, whose UNet it shares.
        inputs: names of its inputs, in their order.

    """

    def __init__(self, whole: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        guided = cast("_GuidedUNet", whole)
        self.unet, self._guided, self._inputs = guided.unet, guided.guided, tuple(inputs)

    def forward(self, latent: Tensor, timestep: Tensor, *others: Tensor) -> Tensor:
        """Predict as the whole one does."""
        return cast("Tensor", self._guided(latent, timestep, dict(zip(self._inputs[2:], others, strict=True))))


class _Autoencoder(Protocol):
    """What is asked of an autoencoder of diffusers."""

    config: Any

    @property
    def dtype(self) -> torch.dtype: ...
    def encode(self, x: Tensor, *, return_dict: bool) -> tuple[Any]: ...  # a distribution; of the tiny one the latent itself
    def decode(self, z: Tensor, *, return_dict: bool) -> tuple[Tensor]: ...


class _Scaled(nn.Module):
    """What knows the scaling of a latent space: a factor, and where a config has them both, mean and deviation by channel."""

    scaling: float
    mean: Tensor | None
    std: Tensor | None

    def keep_scaling(self, config: Any) -> None:  # noqa: ANN401 - diffusers' FrozenDict
        self.scaling = config.scaling_factor
        given = {name: getattr(config, f"latents_{name}", None) for name in ("mean", "std")}
        whole = None not in given.values()  # like the pipelines, which need both
        for name, values in given.items():
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1) if whole else None, persistent=False)

    def unscaled(self, latent: Tensor) -> Tensor:
        if self.std is None or self.mean is None:
            return latent / self.scaling
        return latent * self.std / self.scaling + self.mean

    def scaled(self, latent: Tensor) -> Tensor:
        if self.std is None or self.mean is None:
            return latent * self.scaling
        return (latent - self.mean) * self.scaling / self.std


def stretch_to_skips(unet: nn.Module) -> None:
    """Make a UNet take latents whose sides it cannot halve evenly in every stage, in a graph that is open for any.

    Its forward then hands each upsampler the size of the skip connection that follows, whatever the latent's. The arithmetic is
    diffusers', without its questions about the size, whose answers a graph of many sizes cannot hold.
    """
    network = cast("UNet2DConditionModel", unet)
    network.num_upsamplers = _NEVER  # diffusers asks whether 2 to the power of this divides the latent's sides
    for block in network.up_blocks:
        for upsampler in getattr(block, "upsamplers", None) or ():
            upsampler.interpolate = False
            upsampler.register_forward_pre_hook(_stretched)


#: No latent is a multiple of 2 to the power of this.
_NEVER = 30


def _stretched(_: nn.Module, inputs: tuple[Tensor, tuple[int, int] | None]) -> tuple[Tensor]:
    small, size = inputs
    return (nn.functional.interpolate(small, size=size, mode="nearest"),)


def _drop(network: nn.Module, *names: str) -> None:
    """Take modules out of a network."""
    for name in names:
        setattr(network, name, None)


class _Half(_Scaled):
    """One half of a VAE, in which the modules of the other are set to None."""

    def __init__(self, vae: nn.Module, *others: str) -> None:
        super().__init__()
        _drop(vae, *others)
        self.vae = cast("_Autoencoder", vae)
        self.keep_scaling(self.vae.config)


class Decoder(_Half):
    """VAE decoder: latent (B, C, H, W) → image (B, f*H, f*W, 3) in [0, 1]."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__(vae, "encoder", "quant_conv")

    def forward(self, latent: Tensor) -> Tensor:
        """Undo the latent's scaling, decode, and bring the range to [0, 1]; in training uncut, so that every pixel learns."""
        image = self.vae.decode(self.unscaled(latent).to(self.vae.dtype), return_dict=False)[0].float()
        image = (image / 2 + 0.5).permute(0, 2, 3, 1)
        return image if self.training else image.clamp(0, 1)


class Encoder(_Half):
    """KL-VAE encoder: image (B, f*H, f*W, 3) in [0, 1] and standard normal noise (B, C, H, W) → latent (B, C, H, W)."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__(vae, "decoder", "post_quant_conv")

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """Draw from the encoder's distribution with the noise given, and scale."""
        found = self.vae.encode(_pixels(image, self.vae.dtype), return_dict=False)[0]
        return self.scaled(found.mean.float() + found.std.float() * noise)


class TinyEncoder(_Half):
    """AutoencoderTiny's encoder, which has no distribution: image (B, f*H, f*W, 3) in [0, 1] → latent (B, C, H, W)."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__(vae, "decoder")

    def forward(self, image: Tensor) -> Tensor:
        """Encode and scale."""
        return self.scaled(self.vae.encode(_pixels(image, self.vae.dtype), return_dict=False)[0].float())


class Transplant(_Half):
    """Another VAE's decoder inside a source's VAE, which undoes its own scaling of the latent before."""

    def __init__(self, source: nn.Module, other: nn.Module) -> None:
        super().__init__(other)
        self.outer = _Scaled()
        self.outer.keep_scaling(source.config)

    def forward(self, latent: Tensor, *_: object) -> Tensor:
        """Decode what the source has unscaled: latent (B, C, H, W) → image (B, 3, f*H, f*W) in [-1, 1]."""
        return self.vae.decode(self.unscaled(self.outer.scaled(latent)), return_dict=False)[0]


def transplant(vae: nn.Module, half: str, other: nn.Module) -> None:
    """Give a VAE the encoder or decoder of another that shares its latent space, for diffusers' pipelines to run.

    Args:
        vae: the source's, changed.
        half: vae_encoder or vae_decoder.
        other: the VAE that has it; an encoder's is of the source's class.

    """
    if half == "vae_encoder":
        vae.encoder = other.encoder
        if hasattr(vae, "quant_conv"):
            vae.quant_conv = other.quant_conv
    else:
        vae.decoder = Transplant(vae, other)
        if hasattr(vae, "post_quant_conv"):
            _drop(vae, "post_quant_conv")


def sinusoid(excess: Tensor, width: int) -> Tensor:
    """Embedding (B, width) of guidance_scale - 1 (B,), as latent consistency models take it.

    Equal to `get_guidance_scale_embedding` of diffusers' LCM pipelines (after VDM, google-research/vdm, model_vdm.py).
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=excess.device) * (-math.log(10000.0) / (half - 1)))
    angles = excess[:, None] * 1000.0 * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))


def _asked(scales: Mapping[str, Tensor], name: str) -> Tensor:
    """A scale of guidance, where there is something to guide."""
    if name not in scales:
        raise TypeError(f"{name} is missing, and there are branches or an input for it")
    return scales[name]


def _rescaled(mixed: Tensor, positive: Tensor, share: float) -> Tensor:
    """Bring a mix towards the standard deviation of its positive branch, item by item (2305.08891, equations 15 and 16)."""
    # Of the ratio alone, so that it is the same with and without Bessel's correction, and needs no `std`, which ONNX lacks.
    wanted, found = (
        (each - each.mean((1, 2, 3), keepdim=True)).square().mean((1, 2, 3), keepdim=True) for each in (positive, mixed)
    )
    return share * mixed * (wanted / found).sqrt() + (1 - share) * mixed


def _branched(tensor: Tensor, branches: int) -> Tensor:
    """(B, …) → (B*branches, …), the branches of one item next to each other."""
    return tensor if branches == 1 else tensor.unsqueeze(1).expand(-1, branches, *tensor.shape[1:]).flatten(0, 1)


def _pixels(image: Tensor, dtype: torch.dtype) -> Tensor:
    return (image * 2 - 1).permute(0, 3, 1, 2).to(dtype)
