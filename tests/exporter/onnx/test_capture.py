"""A traced part takes every size of its signature, and no other."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo.exc import UserError

from engines.errors import UnsupportedError
from engines.signature import Port, Range, Signature
from exporter.onnx.capture import traced
from exporter.part import Part

SIGNATURE = Signature(
    inputs=(Port(name="x", shape=("batch", 3, "2*side")), Port(name="ids", dtype="int64", shape=("batch",))),
    outputs=(Port(name="y", shape=("batch", "side")),),
    dims={"batch": Range(min=1, typical=1, max=4), "side": Range(min=4, typical=8, max=16, multiple=4)},
)


class Toy(nn.Module):
    def forward(self, x, ids):
        batch, _, width = x.shape
        return x.reshape(batch, 3, width // 2, 2).mean((1, 3)).exp() + ids[:, None].float()


def part(signature=SIGNATURE, **changes):
    return Part("toy", "denoiser", Toy().eval(), signature, **changes)


def inputs(batch, side):
    return torch.rand(batch, 3, 2 * side), torch.arange(batch)


@pytest.mark.parametrize(("batch", "side"), [(1, 4), (4, 16), (3, 12)])
def test_it_computes_at_every_size(batch, side):
    given = inputs(batch, side)
    torch.testing.assert_close(traced(part()).module()(*given), Toy()(*given))


def test_sizes_have_the_signature_s_ranges_and_multiples():
    program = traced(part())
    x, ids = (node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder")
    assert x[0].node.expr == ids[0].node.expr
    (root,) = x[2].node.expr.free_symbols
    assert x[2].node.expr == 8 * root  # 2*side, and side in steps of 4
    ranges = {symbol: (int(allowed.lower), int(allowed.upper)) for symbol, allowed in program.range_constraints.items()}
    assert ranges[x[0].node.expr] == (1, 4)
    assert ranges[x[2].node.expr] == (8, 32)
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(*inputs(5, 8))


def test_a_size_that_is_fixed_is_no_symbol():
    fixed = Signature(
        inputs=SIGNATURE.inputs, outputs=SIGNATURE.outputs,
        dims={"batch": Range(min=2, typical=2, max=2), "side": SIGNATURE.dims["side"]},
    )  # fmt: skip
    program = traced(part(fixed))
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"]
    assert shapes[0][0] == shapes[1][0] == 2
    assert not isinstance(shapes[0][2], int)
    given = inputs(2, 16)
    torch.testing.assert_close(program.module()(*given), Toy()(*given))


class Tabled(nn.Module):
    """Has a table for one size, and else computes it."""

    def __init__(self, usual, *, same):
        super().__init__()
        self.register_buffer("table", torch.arange(2.0 * usual))
        self.usual, self.same = usual, same

    def forward(self, x, ids):
        if x.shape[2] // 2 == self.usual:
            place = self.table
        elif x.shape[2] // 2 > self.same:
            place = torch.arange(x.shape[2]).float()
        else:
            place = -torch.arange(x.shape[2]).float()
        return (x.mean(1) + place)[:, ::2] + ids[:, None].float()


def tabled(usual, same):
    return Part("toy", "denoiser", Tabled(usual, same=same).eval(), SIGNATURE)


@pytest.mark.parametrize("usual", [4, 8, 12, 16])
def test_a_table_for_one_size_is_no_graph_s_whichever_size_it_is(usual):
    part = tabled(usual, 0)
    module = traced(part).module(check_guards=False)  # which say that the table's own size is none: it is computed as well
    for side in (4, 8, 12, 16):
        given = inputs(3, side)
        torch.testing.assert_close(module(*given), part.module(*given))


def test_one_or_two_is_no_length_that_code_may_take_for_known():
    class Counted(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.ones(x.shape[0] if x.shape[0] != 2 else 2, 2)], 1)

    signature = Signature(inputs=(Port(name="x", shape=("batch", 3)),), outputs=(Port(name="y", shape=("batch", 5)),),
                          dims={"batch": Range(min=1, typical=1, max=2)})  # fmt: skip
    with pytest.raises(UserError, match="batch"):  # and no graph of two alone
        traced(Part("toy", "denoiser", Counted().eval(), signature))


def test_a_way_that_depends_on_the_size_is_refused_with_the_sizes():
    with pytest.raises(UnsupportedError, match=r"toy: its code takes one way at some sizes .* and not at side 16\.\n"):
        traced(tabled(100, 8))


def test_the_same_part_gives_the_same_names():
    assert [node.name for node in traced(part()).graph.nodes] == [node.name for node in traced(part()).graph.nodes]


def test_steps_that_are_named_compute_in_float32():
    class Half(nn.Module):
        def forward(self, x):
            return x.half().exp().float()

    signature = Signature(inputs=(Port(name="x", shape=("batch",)),), outputs=(Port(name="y", shape=("batch",)),),
                          dims={"batch": Range(min=1, typical=1, max=4)})  # fmt: skip
    half = Part("toy", "denoiser", Half().eval(), signature, "fp16")
    given = torch.full((2,), 12.0)  # e^12 is more than half precision holds
    assert traced(half).module()(given).isinf().all()
    (name,) = [node.name for node in traced(half).graph.nodes if node.name.startswith("exp")]
    single = traced(replace(half, single=(name,))).graph
    assert {node.meta["val"].dtype for node in single.nodes if node.name.startswith("exp")} == {torch.float32}
