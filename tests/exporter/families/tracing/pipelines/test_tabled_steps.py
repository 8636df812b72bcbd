"""Würstchen's scheduler as a table within a graph: its own steps, to the same noise."""

from contextlib import nullcontext

import pytest
import torch
from diffusers import DDPMScheduler, DDPMWuerstchenScheduler

from engines.errors import UnsupportedError
from exporter.families.tracing.pipelines.tabled_steps import Share, looked_up, tabled
from exporter.families.tracing.pipelines.two_stages import in_numbers


def test_its_steps_are_the_scheduler_s():
    real, made = DDPMWuerstchenScheduler(), in_numbers(DDPMWuerstchenScheduler())
    assert isinstance(made, DDPMWuerstchenScheduler), "pipelines ask for its class"
    real.set_timesteps(4)
    made.set_timesteps(4, device="cpu")
    assert made.timesteps == pytest.approx(real.timesteps.tolist())
    wanted = found = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    for number, time in enumerate(made.timesteps[:-1]):
        at, seeds = time.expand(1), [torch.Generator().manual_seed(number) for _ in range(2)]
        assert at.tolist() == pytest.approx([time])
        wanted = real.step(wanted.tanh(), at, wanted, generator=seeds[0]).prev_sample
        found = made.step(model_output=found.tanh(), timestep=at, sample=found, generator=seeds[1]).prev_sample
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-4), number


def test_no_graph_looks_a_time_up():
    real = DDPMWuerstchenScheduler()

    class Stage(torch.nn.Module):
        def forward(self, latent):
            made = in_numbers(real)
            made.set_timesteps(2)
            for time in made.timesteps[:-1]:
                latent = made.step(latent * time.expand(latent.shape[0])[:, None], time, latent, return_dict=False)[0]
            return latent

    with torch.no_grad():
        graph = torch.export.export(Stage(), (torch.rand(1, 8),), strict=False).graph
    assert not [node for node in graph.nodes if "local_scalar" in str(node.target) or "argmin" in str(node.target)]


def test_others_are_not_looked_up():
    assert looked_up(DDPMWuerstchenScheduler())
    assert not looked_up(DDPMScheduler())
    assert float(Share(0.5)) == 0.5


def test_what_is_no_sum_is_refused():
    class Bent(DDPMWuerstchenScheduler):
        def step(self, *args, **kwargs):
            made = super().step(*args, **kwargs)
            made.prev_sample = made.prev_sample.clamp(-1, 1)
            return made

    with pytest.raises(UnsupportedError, match="Bent makes no sum of latent, answer and noise at time 1"):
        tabled(Bent(), nullcontext).set_timesteps(3)
