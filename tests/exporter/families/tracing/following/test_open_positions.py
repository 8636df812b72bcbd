"""The largest of positions whose number is open."""

import pytest
import torch
from torch import nn

from exporter.families.tracing.following.open_positions import OpenPositions
from exporter.families.tracing.following.open_texts import OpenTexts


class Placed(nn.Module):
    """Cells put back in their places by (time, row, column, layer), as FLUX.2's pipeline does."""

    def forward(self, grid):
        with OpenTexts(), OpenPositions():
            _, channels, height, width = grid.shape
            ids = torch.cartesian_prod(torch.arange(1), torch.arange(height), torch.arange(width), torch.arange(1))
            found = []
            for cells, places in zip(grid.flatten(2).transpose(1, 2), ids.unsqueeze(0).expand(1, -1, -1).to("cpu"), strict=True):
                rows, columns = (places[:, axis].to(torch.int64) for axis in (1, 2))
                down, across = torch.max(rows) + 1, torch.max(columns) + 1
                flat = (rows * across + columns).unsqueeze(1).expand(-1, channels)
                made = torch.zeros((down * across, channels)).scatter_(0, flat, cells)
                found.append(made.view(down, across, channels).permute(2, 0, 1))
            return torch.stack(found)


@pytest.mark.parametrize("axes", [(2, 3), (3,)])
def test_cells_find_their_places_at_every_size(axes):
    names = {2: torch.export.Dim("height", min=2, max=9), 3: torch.export.Dim("width", min=2, max=9)}
    shapes = ({axis: names[axis] for axis in axes},)
    program = torch.export.export(Placed(), (torch.rand(1, 3, 4, 5),), dynamic_shapes=shapes, strict=False)
    for size in ((4, 7), (4, 3), *([(8, 2)] if 2 in axes else [])):
        grid = torch.rand(1, 3, *size)
        torch.testing.assert_close(program.module()(grid), grid)


def test_what_is_not_counted_up_is_looked_at():
    with OpenTexts(), OpenPositions():
        assert torch.max(torch.tensor([3, 9, 2])).item() == 9
        assert torch.max(torch.arange(5) * 2) == 8
        assert torch.max(torch.arange(2, 7)) == 6
        assert torch.arange(6).max() == 5
