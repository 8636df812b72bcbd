"""Operators are spelled so that ONNX has a form of them, and give what they gave."""

import pytest
import torch
from torch._guards import detect_fake_mode
from torch.fx import GraphModule

from exporter.onnx import export
from exporter.onnx.spelling import spell

GIVEN = torch.linspace(-2, 2, 24).reshape(2, 3, 4)
aten = torch.ops.aten


class Shaped(torch.nn.Module):
    """Has a side of shapes alone, of which one thing is written in place for nobody."""

    def forward(self, latent):
        shape = latent.to(device="meta", dtype=torch.float64) * torch.ones(4, device="meta", dtype=torch.float64)
        shape.clone().add_(1.0)
        return latent * 2, shape


def spelled(function):
    """The graph of a function, spelled."""

    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    graph = torch.export.export(Module(), (GIVEN,), strict=False).graph
    with detect_fake_mode([node.meta["val"] for node in graph.find_nodes(op="placeholder")]):
        spell(graph)
    return graph


@pytest.mark.parametrize(
    ("function", "without"),
    [
        (lambda x: torch.min(x, -x), aten.min.other),
        (lambda x: torch.max(x, -x), aten.max.other),
        (lambda x: (x > -1) & (x < 1), aten.__and__.Tensor),
        (lambda x: (x < -1) | (x > 1), aten.__or__.Tensor),
        (lambda x: torch.outer(x[0, 0], x[1, 0]), aten.outer.default),
        (lambda x: x.movedim(0, -1).sum(0) + x.movedim(-2, 0).movedim(1, 2).sum(0), aten.movedim.int),
        (lambda x: 1 - x, aten.rsub.Scalar),
        (lambda x: torch.stack(torch.meshgrid(x[0, 0], x[:, 0, 0], x[0, :, 1], indexing="ij")), aten.meshgrid.indexing),
        (lambda x: torch.meshgrid(x[0, 0], x[:, 0, 0], indexing="xy")[0], None),
        (lambda x: torch.nn.functional.rms_norm(x, [4]), aten.rms_norm.default),
        (lambda x: torch.nn.functional.rms_norm((x / 64).half(), [4]), aten.rms_norm.default),
        (lambda x: torch.nn.functional.rms_norm((x / 64).bfloat16(), [4]), aten.rms_norm.default),
        (lambda x: torch.nn.functional.rms_norm(x.half(), [3, 4], (x[0] + 1).half(), 1e-3), aten.rms_norm.default),
        (lambda x: x.to(torch.float16), aten.to.dtype),
        (lambda x: x.squeeze(1) + x[:, :1].squeeze(1).sum(), None),
        (lambda x: torch.cat([x, x.half()]), None),
        (lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x), None),
    ],
)
def test_it_gives_what_it_gave(function, without):
    graph = spelled(function)
    assert without not in {node.target for node in graph.nodes}
    graph.lint()
    torch.testing.assert_close(GraphModule({}, graph)(GIVEN)[0], function(GIVEN))


def test_a_side_of_shapes_alone_stays_where_it_is_and_goes_where_nothing_is_made_of_it():
    program = torch.export.export(Shaped(), (torch.ones(2, 4),), strict=False)
    graph, places = program.graph, ("aten.add_.Tensor", "aten._to_copy.default", "aten._assert_tensor_metadata.default")
    with detect_fake_mode([node.meta["val"] for node in graph.find_nodes(op="placeholder")]):
        export._leave_out(graph)
        spell(graph)
    assert not [node for node in graph.nodes if str(node.target) in places]
    assert program.module()(torch.ones(2, 4))[1].is_meta
