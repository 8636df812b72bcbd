"""Of a network that is run for its shapes alone, no graph asks a length."""

import torch
from torch import nn

from exporter.onnx.rooted_lengths import root


class Halved(nn.Module):
    """A side of shapes alone is as wide as what is computed later."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 2, stride=2)
        with torch.device("meta"):
            self.absent = nn.Conv2d(1, 1, 2, stride=2)

    def forward(self, x):
        shape = self.absent(x.to("meta")).shape
        made = self.inner(x)
        return made.flatten(2).reshape(made.shape[0], 1, 4, shape[3])


def test_a_length_is_asked_of_what_is_there():
    width = torch.export.Dim("half", min=2, max=8)
    halved, other = Halved(), torch.randn(1, 1, 8, 10)
    program = torch.export.export(halved, (torch.ones(1, 1, 8, 6),), dynamic_shapes=({3: 2 * width},))

    def asked():
        nodes = program.graph.find_nodes(op="call_function", target=torch.ops.aten.sym_size.int)
        return [node for node in nodes if node.args[0].meta["val"].is_meta and node.users]

    assert asked(), "torch asks the first tensor that has the length"
    root(program.graph)
    assert not asked()
    program.graph.lint()
    torch.testing.assert_close(program.module()(other), halved(other))
