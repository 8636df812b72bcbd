"""A network that is told a second time."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engines.errors import UnsupportedError
from exporter.families.tracing.following import further_times


class Network(nn.Module):
    def forward(self, latent, timestep, timestep_r=None, timestep_cond=None):
        return (
            latent * timestep * (1.0 if timestep_r is None else timestep_r) * (1.0 if timestep_cond is None else timestep_cond[0])
        )


def test_it_is_told_and_an_embedding_of_the_guidance_scale_is_none():
    network, time = Network(), torch.ones(1)
    with further_times.refused(SimpleNamespace(components={"transformer": network, "vae": None}), "Some"):
        network(torch.ones(1), timestep=time, timestep_r=None, timestep_cond=torch.ones(1, 4))
        with pytest.raises(UnsupportedError, match="Some tells its network timestep and timestep_r: beside the time of a step"):
            network(torch.ones(1), timestep=time, timestep_r=time)
    network(torch.ones(1), timestep=time, timestep_r=time)
