"""Complex numbers of a traced part are pairs of real ones, and give the same."""

import pytest
import torch
from torch import nn

from exporter.onnx.complex_numbers import Pairs, in_real_pairs

FREQUENCIES = torch.polar(torch.ones(6, 4), torch.arange(24.0).reshape(6, 4))
#: What is done with complex tensors where positions become rotations.
WAYS = {
    "cut": lambda one, two: torch.cat([one[1:3], two[..., :2].repeat(1, 2)], dim=-2),
    "split": lambda one, two: torch.stack([*one.split([1, 3], dim=1)[1].unbind(-1), *two.chunk(2, dim=1)[0].unbind(1)], 1),
    "shape": lambda one, two: (one.view(2, 3, 4).transpose(0, -1) * two.unsqueeze(-2).reshape(4, 3, 2)).flatten(0, 1),
    "spread": lambda one, two: one[None, :, None].expand(3, -1, 2, 4).squeeze(0).clone().contiguous() * 2.0 * two[:, None],
    "padded": lambda one, two: nn.functional.pad(one * two, (1, 0, 2, 0)) * nn.functional.pad(one, (0, 1, 0, 2), value=0.0),
    "put": lambda one, two: placed(two, torch.cat([one, two])),
    "made": lambda one, two: torch.complex(one.real, two.imag).to("cpu") * torch.polar(one.real, two.real),
}


def placed(two, rows):
    """Some rows, each of the table's that its number names, in a tensor of zeros."""
    found = torch.zeros(2, two.shape[0], 4, dtype=rows.dtype)
    found[0, 2:] = rows[None].gather(1, torch.arange(4)[None, :, None].expand(1, 4, 4))[0]
    found[..., :1] = rows[:1, :1] * 2.0
    return found


class Rotated(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.frequencies = way, FREQUENCIES

    def forward(self, states):
        rows = torch.view_as_complex(states.float().reshape(*states.shape[:-1], -1, 2))
        return torch.view_as_real(self.way(self.frequencies, rows)).flatten(1)


@pytest.mark.parametrize("name", WAYS)
def test_the_program_has_no_complex_tensors_and_gives_the_same(name):
    module, states = Rotated(WAYS[name]), torch.rand(6, 8)
    with in_real_pairs(module):
        program = torch.export.export(module, (states,), strict=False)
    assert "forward" not in vars(module)
    torch.testing.assert_close(program.module()(states), module(states))
    computed = [node.meta["val"] for node in program.graph.nodes if node.op == "call_function"]
    assert not any(value.is_complex() for value in computed if isinstance(value, torch.Tensor))


def test_what_cannot_be_computed_so_is_named():
    module = Rotated(lambda one, two: one.cumsum(0) * two)
    with in_real_pairs(module), pytest.raises(NotImplementedError, match="cumsum of complex numbers"):
        module(torch.rand(6, 8))


def test_a_pair_says_what_a_tensor_says():
    pair = Pairs(torch.rand(2, 3, 2))
    assert (pair.shape, pair.ndim, pair.device.type) == ((2, 3), 2, "cpu")
    assert pair.size(1) == 3
    assert (pair.dtype, Pairs(torch.rand(3, 2, dtype=torch.float64)).dtype) == (torch.complex64, torch.complex128)
    assert not hasattr(pair, "__array__")
