"""How much memory a training takes at least, and that its networks' weights are their own."""

import pytest
import torch
from torch import nn

from engines.errors import MachineError
from exporter.passes.distill import Distill
from exporter.training import memory
from tests.exporter.lessons import read, train


def test_too_little_memory_is_said_before_it_starts(text, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda _device: 1000)
    with pytest.raises(MachineError, match=r"needs at least .* GB of memory .* of 0.00 GB free on cpu"):
        train(read(text), tmp_path)


def test_memory_counts_weights_gradients_moments_and_average():
    plain = Distill(data="d", steps=1)
    device = torch.device("cpu")
    told = memory.refuse_memory(10**6, 10**7, plain, device, 1)
    assert "at least 0.06 GB" in told
    average = Distill(data="d", steps=1, ema=0.9, mixed_precision="bf16")
    assert "at least 0.04 GB" in memory.refuse_memory(10**6, 10**7, average, device, 1)


@pytest.mark.parametrize(
    ("options", "shares", "each", "teacher"),
    [({}, 1, 16, 4), ({"ema": 0.9}, 1, 20, 4), ({"mixed_precision": "bf16"}, 1, 18, 2), ({"mixed_precision": "tf32"}, 2, 8, 4)],
)
def test_bytes_by_hand(monkeypatch, options, shares, each, teacher):
    """Weights, gradients, two moments and the average of a billion parameters; the teacher's weights of another."""
    student, other = 10**9, 10**9
    asked = Distill(data="d", steps=1, **options)
    monkeypatch.setattr(memory, "available", lambda _: each * student + teacher * other)
    told = memory.refuse_memory(student, other, asked, torch.device("cpu"), shares)
    assert told.startswith(f"needs at least {each + teacher}.00 GB of memory")
    monkeypatch.setattr(memory, "available", lambda _: each * student + teacher * other - 1)
    with pytest.raises(MachineError, match=rf"distill needs at least {each + teacher}\.00 GB .*\n  Leave ema out"):
        memory.refuse_memory(student, other, asked, torch.device("cpu"), shares)


def test_a_machine_has_memory():
    assert 2**20 < memory.available(torch.device("cpu")) < 2**50


def test_weights_of_a_file_become_the_network_s_own():
    shared = torch.arange(16, dtype=torch.float32)
    network = nn.BatchNorm1d(3)
    network.weight.data, network.running_mean.data = shared[1:4], shared[5:8]
    assert memory.own(network) is network
    shared.zero_()
    assert network.weight.tolist() == [1, 2, 3]
    assert network.running_mean.tolist() == [5, 6, 7]
    assert network.weight.data_ptr() % 64 == network.running_mean.data_ptr() % 64 == 0
    assert not any(weight.requires_grad for weight in network.parameters())
