"""The networks of `tests.engines.small` in torch."""

import torch
from torch import nn

from exporter.part import Part
from tests.engines import small


class Text(nn.Module):
    def forward(self, ids):
        return ids.float().mean(dim=2, keepdim=True) / 16


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, latent, timestep, *others):
        *scale, embeds = others
        steer = embeds[:, 0]
        if scale:
            steer = steer + scale[0][:, None] * (embeds[:, -1] - embeds[:, 0])
        return torch.tanh(self.one * latent + steer[:, :, None, None] + timestep[:, None, None, None] / 1000)


class Decoder(nn.Module):
    def forward(self, latent):
        pixels = latent.permute(0, 2, 3, 1)[..., :3].repeat_interleave(small.FACTOR, 1).repeat_interleave(small.FACTOR, 2)
        return (pixels / 4 + 0.5).clamp(0, 1)


def parts(bundle):
    modules = {"text": Text, "denoiser": Denoiser, "decoder": Decoder}
    entries = bundle.manifest.parts.items()
    return {
        name: Part(name, part.role, modules[part.role]().eval(), part.signature) for name, part in entries if part.role in modules
    }
