"""A call that is put into a graph knows what it gives, and where it belongs."""

import torch
from torch._guards import detect_fake_mode
from torch.fx import GraphModule

from exporter.onnx.calls import call


def test_a_call_stands_before_its_user_and_has_the_shape_that_torch_gives_it():
    class Module(torch.nn.Module):
        def forward(self, x):
            return x * 2

    graph = torch.export.export(Module(), (torch.ones(2, 3),), strict=False).graph
    (given,) = graph.find_nodes(op="placeholder")
    (user,) = given.users
    with detect_fake_mode([given.meta["val"]]):
        made = call(user, torch.ops.aten.sum.dim_IntList, given, [1], keepdim=True)
    assert made.next is user
    assert made.meta["val"].shape == (2, 1)
    assert made.meta["nn_module_stack"] == user.meta["nn_module_stack"]
    user.args = made, 2
    assert GraphModule({}, graph)(torch.ones(2, 3))[0].tolist() == [[6.0], [6.0]]
