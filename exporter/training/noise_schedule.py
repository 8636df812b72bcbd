"""The noise schedule as arithmetic on tensors: what a network's answer says of a noisy latent, and DDIM's step along the grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.models.sampler_compat import trailing

if TYPE_CHECKING:
    from diffusers import DDPMScheduler

Prediction = Literal["epsilon", "v_prediction", "sample"]
Weighting = Literal["truncated_snr", "snr_plus_one", "none"]


def ddpm(config: Mapping[str, Any]) -> DDPMScheduler:
    """The scheduler of trainings as diffusers has it, from the config of a model's scheduler."""
    from diffusers import DDPMScheduler  # noqa: PLC0415 - lets tests of the rest load quickly

    # Its annotation allows for the config too, which comes back only where it is asked for.
    return cast("DDPMScheduler", DDPMScheduler.from_config(dict(config)))


class Schedule:
    """A variance-preserving schedule: x_t = a_t · clean + s_t · noise at times 0 to T - 1; time -1 is the end, with a = 1, s = 0.

    Args:
        config: of the model's scheduler, as diffusers keeps it.
        verb: the pass, for the message.

    Attributes:
        prediction: what the model predicts.
        count: T.

    Raises:
        UnsupportedError: the model is a flow, or predicts what this knows nothing of.

    """

    def __init__(self, config: Mapping[str, Any], verb: str) -> None:
        name = str(config.get("_class_name", ""))
        if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
            raise UnsupportedError(f"{verb}: {name} is a flow, and this pass knows noise, velocity and sample along a schedule.")
        made = ddpm(config)
        self.prediction: str = str(made.config["prediction_type"])
        if self.prediction not in {"epsilon", "v_prediction", "sample"}:
            raise UnsupportedError(f"{verb}: a model of prediction_type {self.prediction!r} says nothing of its noise.")
        cumulative = made.alphas_cumprod.double()
        signal = torch.cat([torch.ones(1, dtype=torch.float64), cumulative])
        self.count = len(cumulative)
        self._signal, self._noise = signal.sqrt().float(), (1 - signal).sqrt().float()

    def settle(self, device: torch.device) -> None:
        """Keep the tables on this device."""
        self._signal, self._noise = self._signal.to(device), self._noise.to(device)

    def grid(self, steps: int) -> Tensor:
        """Times (steps + 1,) of a sampler with trailing spacing, int64, the end last: T - 1 first, as diffusers rounds them."""
        return torch.tensor([*trailing(self.count, steps), -1], device=self._signal.device)

    def level(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """A and s at times (N,), each (N, 1, 1, 1)."""
        a, s = (table[times + 1].reshape(-1, 1, 1, 1) for table in (self._signal, self._noise))
        return a, s

    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Latents at times (N,)."""
        a, s = self.level(times)
        return a * clean + s * noise

    def split(self, prediction: str, latent: Tensor, said: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Clean latent and noise, as a network that predicts so says."""
        a, s = self.level(times)
        if prediction == "epsilon":
            return (latent - s * said) / a, said
        if prediction == "v_prediction":
            return a * latent - s * said, s * latent + a * said
        return said, (latent - a * said) / s

    def step(self, prediction: str, latent: Tensor, said: Tensor, times: Tensor, to: Tensor) -> Tensor:
        """DDIM without noise of its own (2010.02502, equation 12): the latent at another time."""
        clean, noise = self.split(prediction, latent, said, times)
        return self.noisy(clean, noise, to)

    def aim(self, latent: Tensor, arrived: Tensor, times: Tensor, to: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latent and noise with which one DDIM step arrives there (2202.00512, appendix G)."""
        (a, s), (a_to, s_to) = self.level(times), self.level(to)
        clean = (arrived - s_to / s * latent) / (a_to - s_to / s * a)
        return clean, (latent - a * clean) / s

    def weight(self, kind: Weighting, times: Tensor) -> Tensor:
        """Of squared errors of the clean latent, (N, 1, 1, 1) (2202.00512, section 4)."""
        a, s = self.level(times)
        ratio = (a / s) ** 2
        return {"truncated_snr": ratio.clamp(min=1.0), "snr_plus_one": ratio + 1.0, "none": torch.ones_like(ratio)}[kind]


def guided(
    network: Callable[..., Tensor],
    latent: Tensor,
    times: Tensor,
    states: Sequence[Tensor],
    empty: Sequence[Tensor],
    scale: Tensor,
) -> Tensor:
    """What a network without guidance of its own says under classifier-free guidance, both branches in one call.

    Args:
        network: latent, timestep, conditioning → output.
        latent: (N, C, H, W).
        times: (N,).
        states: conditioning (N, 1, …).
        empty: the empty prompt's (1, 1, …).
        scale: (N,), the pipelines' guidance_scale.

    """
    both = [torch.cat([blank.expand_as(own), own]) for blank, own in zip(empty, states, strict=True)]
    negative, positive = network(latent.repeat(2, 1, 1, 1), times.repeat(2).float(), *both).float().chunk(2)
    return negative + scale.reshape(-1, 1, 1, 1) * (positive - negative)
