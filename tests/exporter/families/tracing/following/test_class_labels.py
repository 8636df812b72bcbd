"""What is handed to a network as a class meets the step before the network computes."""

from types import SimpleNamespace

import torch
from torch import nn

from exporter.families.tracing.following.class_labels import met_at_the_door
from exporter.families.tracing.following.origins import STEP, Origins, marked, origins
from exporter.families.tracing.following.standins import idle


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen = []

    def forward(self, sample, class_labels=None):
        self.seen.append(class_labels)
        return sample + self.layer(class_labels)


class Other(nn.Module):
    def forward(self, sample):
        return sample


def test_the_first_layer_is_the_step_s_and_what_crosses_is_what_was_handed_over():
    pipeline, crossed = SimpleNamespace(unet=Network(), vae=Other()), []
    before, step = pipeline.unet, marked(torch.ones(1, 4), STEP)

    def crossing(_number, made):
        crossed.append(made)
        return made

    with Origins(crossing), met_at_the_door(pipeline):
        assert isinstance(pipeline.unet, Network)
        assert isinstance(pipeline.vae, Other)
        labels = marked(torch.rand(1, 4), "image")
        pipeline.unet(step, class_labels=labels)
        pipeline.unet(step, class_labels=step)
    assert pipeline.unet is before
    (own,) = crossed
    assert own is labels
    assert all(STEP in origins(each) for each in before.seen)
    assert torch.equal(before.seen[0], labels)
    assert before.seen[1] is step, "what is the step's already is handed on"


def test_a_network_that_computes_nothing_meets_it_too():
    pipeline, crossed = SimpleNamespace(unet=idle(Network(), 7)), []
    with Origins(lambda _, made: crossed.append(made) or made), met_at_the_door(pipeline):
        assert pipeline.unet(None, class_labels=marked(torch.rand(1, 4), "image")) == 7
    assert len(crossed) == 1
