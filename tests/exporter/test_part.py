"""A part is its wrapper, the library's own network inside, and what a pass put in its place."""

from types import SimpleNamespace

import pytest
from torch import nn

from engines.signature import Port, Signature
from exporter.part import Case, Part

SIGNATURE = Signature(inputs=(Port(name="x", shape=(1,)),), outputs=(Port(name="y", shape=(1,)),), dims={})


class Network(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.config = SimpleNamespace(name=name)


class Wrapper(nn.Module):
    """Beside the network it holds what has no config."""

    def __init__(self, network):
        super().__init__()
        self.norm = nn.Identity()
        self.unet = network


def part(**changes):
    return Part("unet", "denoiser", Wrapper(Network("own")), SIGNATURE, **changes)


def test_the_network_is_the_child_that_has_a_config():
    made = part()
    assert made.network is made.module.unet
    assert made.network.config.name == "own"


def test_another_network_stands_in_the_same_wrapper():
    made, other = part(precision="fp16", notes=("a note",)), Network("other")
    again = made.replacing(other)
    assert again is not made
    assert again.module is made.module
    assert again.network is made.module.unet is other
    assert (again.precision, again.notes, again.signature) == ("fp16", ("a note",), SIGNATURE)


def test_a_wrapper_without_a_network_is_a_mistake():
    made = Part("unet", "denoiser", nn.Sequential(nn.Identity()), SIGNATURE)
    with pytest.raises(StopIteration):
        _ = made.network


def test_what_is_not_said_is_empty():
    made = part()
    assert (made.precision, made.single, made.cases, made.notes, made.metadata) == ("fp32", (), (), (), ())
    assert Case("x", {}, {}).passes == {}
