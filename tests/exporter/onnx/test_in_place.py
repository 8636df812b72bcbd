"""Writes become tensors of their own where nothing reads the memory by another name; all others stay."""

import pytest
import torch
from torch._guards import detect_fake_mode
from torch.fx import GraphModule

from exporter.onnx.in_place import take_out

GIVEN = torch.arange(24.0).reshape(2, 3, 4)


def counted(x):
    ids = torch.zeros(3, 4, 3)
    ids[..., 1] = ids[..., 1] + torch.arange(3)[:, None]
    ids[..., 2] = ids[..., 2] + torch.arange(4)[None, :]
    return ids.reshape(12, 3) + x.sum()


def whole(x):
    made = x * 2
    made.add_(1.0).mul_(3.0)
    return made


def parts(x):
    made = x.clone()
    made[:, 1:3] *= 2
    made[1][0] -= 5
    made[:, -1] = 7 * x[:, 0]
    made[:] = made + 1
    return made


def narrower(x):
    made = torch.zeros(2, 3, 4, dtype=torch.float16)
    made[0] = x[1]
    return made + 0.5


def copied(x):
    source, made = x * 2, x * 3
    made.copy_(source)
    made.add_(1.0)
    return source, made


def read_before(x):
    made = x * 2
    before = made[0] + 1
    made[0].zero_()
    return before, made


def dead(x):
    ids = torch.zeros(3, 4)
    ids[:, 0] += x[0, :, 0]
    return x + 1


@pytest.mark.parametrize("written", [counted, whole, parts, narrower, copied, read_before, dead])
def test_what_is_written_is_computed(written):
    program, wanted = exported(written), written(GIVEN)
    assert writes(program) == 0
    torch.testing.assert_close(given_by(program, GIVEN), wanted)


def named_before(x):
    made = x * 2
    part = made[:, 0]
    made.add_(1.0)
    return made, part


def answered(x):
    made = x * 2
    part = made[:, 0].add_(1.0)
    made.mul_(2.0)
    return made, part


def given(x):
    x.add_(1.0)
    return x * 2


def by_places(x):
    made = x * 2
    made[torch.tensor([0, 1]), 0] = 1.0
    made[:, ::2] += 1
    made[:, 1:2] = x.sum()
    return made


@pytest.mark.parametrize(("written", "left"), [(named_before, 1), (answered, 2), (given, 1), (by_places, 1)])
def test_what_another_name_reads_or_no_number_places_stays(written, left):
    wanted = written(GIVEN.clone())
    program = exported(written)
    assert writes(program) == left
    torch.testing.assert_close(given_by(program, GIVEN.clone()), wanted)


def test_open_lengths_are_written_whole():
    class Marked(torch.nn.Module):
        def forward(self, x):
            ids = torch.zeros(x.shape[1], 2)
            ids[:, 1] = torch.arange(x.shape[1])
            return ids[None] + x[..., :2]

    length = torch.export.Dim("length", min=2, max=9)
    program = torch.export.export(Marked(), (GIVEN,), dynamic_shapes=({1: length},), strict=False)
    with detect_fake_mode([node.meta["val"] for node in program.graph.find_nodes(op="placeholder")]):
        take_out(program.graph)
    made = GraphModule({}, program.graph)
    assert writes(made) == 0
    longer = torch.arange(40.0).reshape(2, 5, 4)
    torch.testing.assert_close(given_by(made, longer), Marked()(longer))


def exported(function):
    """A graph that was traced of a function, without the writes that can be taken out; it gives what the function gives."""

    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    program = torch.export.export(Module(), (GIVEN.clone(),), strict=False)
    with detect_fake_mode([node.meta["val"] for node in program.graph.find_nodes(op="placeholder")]):
        take_out(program.graph)
    made = GraphModule({}, program.graph)
    made.constants = [*program.constants.values()]  # inputs of the graph, before its own
    return made


def given_by(program, x):
    """What it gives, which a graph gives as a tuple."""
    found = program(*getattr(program, "constants", ()), x)
    return found if len(found) > 1 else found[0]


def writes(program):
    operators = (node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload))
    return sum(each._schema.name.endswith("_") for each in operators)
