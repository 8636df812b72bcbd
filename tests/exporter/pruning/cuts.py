"""What tests of cuts share: a network, how it is cut, and how it is called."""

import torch

from exporter.pruning.surgery import carry_out
from tests.exporter import models


def network():
    """Two pairs down and three up, attentions of three layers within."""
    return models.unet(layers_per_block=2, transformer_layers_per_block=[1, 3, 1])


def cut(prune, network):
    return carry_out(network, prune._cut(network.config))


def call(network, size=16):
    """One call on fixed inputs; sizes of the tiny networks."""
    generator = torch.Generator().manual_seed(0)
    latent, text = torch.randn(2, 4, size, size, generator=generator), torch.randn(2, 7, 16, generator=generator)
    with torch.no_grad():
        return network(latent, torch.tensor(500), text).sample
