"""A trace leaves nothing in the networks, and what they ask of other devices nothing in the graph."""

import pytest
import torch
from diffusers.models.transformers.transformer_z_image import RopeEmbedder
from torch import nn

from exporter.onnx.isolation import isolated


class Rotating(nn.Module):
    """Makes a table when it is first called, in an object that is no module."""

    def __init__(self, device="cuda"):
        super().__init__()
        self.embedder, self.device = RopeEmbedder(axes_dims=(4, 2), axes_lens=(8, 8)), device

    def forward(self, places):
        with torch.autocast(self.device, enabled=False):
            return torch.view_as_real(self.embedder(places))


def nested(program):
    return [node for node in program.graph.nodes if node.op == "get_attr" and "submod" in str(node.target)]


def test_tables_that_are_made_once_are_forgotten_and_autocast_elsewhere_makes_no_graph_of_its_own():
    module, places = Rotating(), torch.tensor([[1, 2], [3, 4]])
    for _ in range(2):
        with isolated(module):
            program = torch.export.export(module, (places,), strict=False)
        assert module.embedder.freqs_cis is None
        assert not nested(program)
    torch.testing.assert_close(program.module()(places), module(places))


def test_tables_that_are_there_stay():
    module, places = Rotating(), torch.tensor([[1, 2]])
    module(places)
    kept = module.embedder.freqs_cis
    with isolated(module):
        module(places)
    assert module.embedder.freqs_cis is kept


def test_autocast_of_the_processor_is_left_to_torch():
    with isolated(Rotating()):
        assert nested(torch.export.export(Rotating("cpu"), (torch.tensor([[1, 2]]),), strict=False))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with pytest.raises(ZeroDivisionError), isolated(Rotating()), torch.autocast("cuda", enabled=False):
        raise ZeroDivisionError
