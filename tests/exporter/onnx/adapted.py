"""A network with a layer of every form that takes LoRAs, two rows for each item of the batch."""

import torch
from torch import nn

from engines.lora.layers import LoraLimits
from engines.signature import Port, Range, Signature
from exporter.onnx.lora_inputs import LoraGraphPass
from exporter.part import Part

SIGNATURE = Signature(
    inputs=(Port(name="latent", shape=("batch", 4, "side", "side_2")), Port(name="timestep", shape=("batch",))),
    outputs=(Port(name="model_output", shape=("batch", 4, "side", "side_2")),),
    dims={
        "batch": Range(min=1, typical=1, max=4),
        **{side: Range(min=4, typical=8, max=16, multiple=4) for side in ("side", "side_2")},
    },
)
LIMITS = LoraLimits(slots=2, max_rank=8, conv_rank=8)


class Block(nn.Module):
    """Every form: a vector's product, rows', pixels', a kernel, one with a stride, one behind a doubling, one in groups."""

    def __init__(self):
        super().__init__()
        self.time, self.proj = nn.Linear(4, 16), nn.Conv2d(8, 16, 1)
        self.down, self.up = nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.to_q, self.to_out, self.groups = (
            nn.Linear(16, 16, bias=False),
            nn.Linear(16, 16),
            nn.Conv2d(16, 16, 3, padding=1, groups=2),
        )

    def forward(self, hidden, time):
        hidden = self.down(self.proj(hidden)) + self.time(time)[:, :, None, None]
        rows = hidden.flatten(2).transpose(1, 2)
        rows = rows + self.to_out(self.to_q(rows).tanh())
        hidden = rows.transpose(1, 2).reshape(hidden.shape)
        return self.groups(self.up(nn.functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))).tanh()


class Network(nn.Module):
    """A block between two convolutions."""

    def __init__(self):
        super().__init__()
        self.config = {}
        self.unused, self.words = nn.ModuleList([nn.Linear(4, 4)]), nn.Embedding(3, 4)
        self.conv_in, self.blocks, self.conv_out = (
            nn.Conv2d(4, 8, 3, padding=1),
            nn.ModuleList([Block()]),
            nn.Conv2d(16, 4, 3, padding=1),
        )

    @property
    def dtype(self):
        return self.conv_in.weight.dtype

    def forward(self, latent, time):
        return self.conv_out(self.blocks[0](self.conv_in(latent), time))


class Guided(nn.Module):
    """Two rows for each item, the second of them turned around."""

    def __init__(self):
        super().__init__()
        self.unet = Network()

    def forward(self, latent, timestep):
        rows = torch.stack([latent, -latent], 1).flatten(0, 1).to(self.unet.dtype)
        time = torch.stack([timestep, timestep], 1).flatten(0, 1)[:, None].expand(-1, 4).to(self.unet.dtype)
        one, two = self.unet(rows, time).float().reshape(latent.shape[0], 2, *latent.shape[1:]).unbind(1)
        return one + 2.0 * (two - one)


class Open(nn.Module):
    """As many rows for each item as there are factors, added up: a network whose number of branches is open."""

    def __init__(self):
        super().__init__()
        self.unet = Network()

    def forward(self, latent, timestep, factors):
        rows = (latent[:, None] * factors[:, :, None, None, None]).flatten(0, 1)
        time = timestep[:, None].expand(-1, factors.shape[1]).flatten(0, 1)[:, None].expand(-1, 4)
        return self.unet(rows, time).unflatten(0, (latent.shape[0], factors.shape[1])).sum(1)


def open_part():
    torch.manual_seed(1)
    inputs = (*SIGNATURE.inputs, Port(name="factors", shape=("batch", "branches")))
    dims = {**SIGNATURE.dims, "branches": Range(min=1, typical=3, max=3)}
    signature = Signature(inputs=inputs, outputs=SIGNATURE.outputs, dims=dims)
    return Part("unet", "denoiser", Open().eval().requires_grad_(requires_grad=False), signature)


def part(dtype=torch.float32):
    torch.manual_seed(1)
    return Part("unet", "denoiser", Guided().eval().to(dtype).requires_grad_(requires_grad=False), SIGNATURE)


def graph_pass(of, limits=LIMITS, patterns=(), repeats=2):
    return LoraGraphPass(limits, "other", of.network, {}, repeats, patterns)
