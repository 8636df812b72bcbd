"""What depends on no input is computed where a graph is made, and Python may ask for its values."""

import torch
from torch import nn

from exporter.families.tracing.following.constants import Constants


class Windowed(nn.Module):
    """Attends within windows that Python plans by a grid, as vision towers do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def forward(self, rows):
        with Constants():
            places = torch.arange(6).reshape(2, 3)
            lengths = (places != 1).sum(1).tolist()
            order = places[places != 1]
            sums = [piece.sum(0) for piece in rows[order].split(lengths)]
            return torch.stack(sums) * self.weight


def test_a_network_may_plan_in_python_by_numbers_of_its_own():
    module, rows = Windowed(), torch.arange(18.0).reshape(6, 3)
    program = torch.export.export(module, (rows,), strict=False)
    found = program.module()(rows + 1)
    assert torch.equal(found, module(rows + 1))
    assert torch.equal(found[0], 2 * (rows[0] + rows[2] + 2))
    steps = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("nonzero" in step or "_local_scalar" in step for step in steps)


def test_open_lengths_and_inputs_stay_open():
    class Counted(nn.Module):
        def forward(self, rows):
            with Constants():
                return rows + torch.arange(rows.shape[0])[:, None]

    shapes = ({0: torch.export.Dim("count", min=2, max=9)},)
    program = torch.export.export(Counted(), (torch.zeros(4, 2),), dynamic_shapes=shapes, strict=False)
    assert torch.equal(program.module()(torch.zeros(7, 2))[:, 0], torch.arange(7.0))
