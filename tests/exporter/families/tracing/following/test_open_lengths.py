"""Lengths of a pipeline stay open where its code makes numbers, lists and tensors of them."""

import functools
import math

import pytest
import torch
from diffusers.pipelines.flux import pipeline_flux
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from engines.errors import UnsupportedError
from exporter.families.tracing.following.open_lengths import Area, Repeated, joined, largest, one_batch, open_lengths, smallest
from exporter.families.tracing.following.open_lengths import pad_sequence as padded_rows
from exporter.families.tracing.following.open_positions import OpenPositions
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.open_texts import OpenTexts
from exporter.families.tracing.following.standins import Answered


def bare(**components):
    """A pipeline of Flux's class, of these components."""
    kind = type("FluxPipeline", (pipeline_flux.FluxPipeline,), {"components": components})
    return object.__new__(kind)


def nothing(_shape):
    raise AssertionError("no noise is to be drawn")


def test_a_scale_that_is_an_input_stays_one_where_a_pipeline_makes_a_number_of_it():
    scale = OpenScale(torch.tensor([2.0]), on=True)
    with open_lengths(bare()):
        number = vars(pipeline_flux)["float"]
        assert number(scale) is scale
        assert number("2.5") == 2.5
    with pytest.raises(TypeError, match="is an input of the graph"):
        float(scale)


def test_lengths_stay_open_in_the_pipeline_s_own_module_alone():
    class Doubled(nn.Module):
        def forward(self, value):
            with open_lengths(self.pipeline):
                rows = vars(self.module)["int"](value.shape[0]) // 2
            return value[:rows]

    Doubled.pipeline, Doubled.module = bare(), pipeline_flux
    rows = 2 * torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(Doubled(), (torch.ones(8, 2),), dynamic_shapes=({0: rows},))
    assert program.module()(torch.ones(6, 2)).shape == (3, 2)
    assert "int" not in vars(pipeline_flux)
    with open_lengths(Doubled.pipeline):
        whole = vars(pipeline_flux)["int"]
        assert whole("12") == 12
        assert isinstance(3, whole)


def test_what_is_made_of_open_lengths_stays_open_too():
    pipeline = bare()

    class Counted(nn.Module):
        def forward(self, value):
            with open_lengths(pipeline), Answered(nothing):
                share = vars(pipeline_flux)["float"](0.5 * value.shape[0])
                zeros = torch.tensor([0] * value.shape[0])
                texts = [""] * value.shape[0]
                times = torch.tensor([value[:, 0]] * value.shape[0])
                even = torch.linspace(0, 2 * (value.shape[0] - 1) / value.shape[0], value.shape[0], dtype=torch.float32)
                square = torch.ones(value.shape[0], value.shape[0]).fill_diagonal_(-1)
            return zeros, square, share * torch.ones(texts.times // value.shape[0]), times, even

    program = torch.export.export(Counted(), (torch.ones(4, 2),), dynamic_shapes=({0: torch.export.Dim("rows", min=2, max=64)},))
    zeros, square, share, times, even = program.module()(2 * torch.ones(6, 2))
    torch.testing.assert_close(even, torch.linspace(0, 10 / 6, 6))
    assert times.tolist() == [2.0] * 6
    assert (zeros.dtype, zeros.tolist(), share.item()) == (torch.int64, [0] * 6, 3.0)
    assert torch.equal(square, torch.ones(6, 6) - 2 * torch.eye(6))
    assert {"int", "float"}.isdisjoint(vars(pipeline_flux))
    with open_lengths(pipeline):
        assert vars(pipeline_flux)["float"]("1.5") == 1.5
        assert isinstance(1.5, vars(pipeline_flux)["float"])
        assert ["a"] * 2 == ["a", "a"]


def test_a_list_of_open_length_is_a_list_of_one_thing():
    found = Repeated("a", 7)
    assert isinstance(found, list)
    assert (found[0], len(found), found.times) == ("a", 1, 7)
    with pytest.raises(UnsupportedError, match="goes through a list that has one entry for each picture"):
        list(found)


def test_a_pipeline_that_makes_sides_of_an_area_makes_those_that_were_asked_for():
    class Sided(nn.Module):
        def forward(self, value):
            height, width = value.shape
            area, ratio = Area(height, width), width / height
            return torch.ones(round((area / ratio) ** 0.5) // 2 * 2, round((area * ratio) ** 0.5) // 2 * 2)

    sides = {0: 2 * torch.export.Dim("rows", min=2, max=64), 1: 2 * torch.export.Dim("columns", min=2, max=64)}
    program = torch.export.export(Sided(), (torch.ones(8, 6),), dynamic_shapes=(sides,), strict=False)
    assert program.module()(torch.ones(10, 4)).shape == (10, 4)
    assert Sided()(torch.ones(8, 6)).shape == (8, 6)


def test_lengths_stay_open_in_the_pipeline_s_networks_too():
    from diffusers.models.transformers import transformer_flux

    class Network(nn.Module):
        __module__ = transformer_flux.__name__

    with open_lengths(bare(transformer=Network(), other=1)):
        assert vars(transformer_flux)["int"]("3") == 3
    assert "int" not in vars(transformer_flux)


def test_what_a_network_keeps_of_a_call_is_made_anew():
    class Network(nn.Module):
        @functools.lru_cache(maxsize=8)  # noqa: B019 - as diffusers has it
        def made(self, length):
            return torch.zeros(length)

    network = Network()
    kept = network.made(3)
    with open_lengths(bare(transformer=network)):
        assert network.made(3) is not kept
    assert network.made(3) is kept


def test_how_often_one_batch_goes_into_another_is_a_number_of_rows_that_are_joined():
    class Joined(nn.Module):
        def forward(self, latents, prompts):
            one_batch((latents, prompts))
            with open_lengths(bare()):
                return torch.cat([latents] * (torch.cat([prompts] * 3).shape[0] // latents.shape[0]))

    both = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(Joined(), (torch.ones(2, 2), torch.ones(2, 3)), dynamic_shapes=(both, both), strict=False)
    assert program.module()(torch.ones(5, 2), torch.ones(5, 3)).shape == (15, 2)


class Filled(nn.Module):
    """What a network does that fills texts up to a multiple of 4, and the shorter one up to the longer."""

    def forward(self, first, second):
        with open_lengths(bare()), Answered(nothing), OpenTexts(), OpenPositions():  # what a pipeline is followed within
            own = vars(pipeline_flux)
            rows = []
            for row in (first, second):
                missing = -own["len"](row) % 4
                assert missing is -own["len"](row) % 4, "what is missing is one number wherever it is asked for"
                places = torch.arange(own["len"](row) + missing, dtype=row.dtype)
                rows.append((torch.cat([row, row[-1:].repeat(missing, 1)]) if missing > 0 else row) + 0 * places[:, None])
            counts = [own["len"](row) for row in rows]
            assert own["all"](count % 4 == 0 for count in counts)
            assert not own["all"](count % 3 == 0 for count in counts)
            most = own["max"](counts)
            mask = torch.zeros(2, most)
            for index, count in enumerate(counts):
                mask[index, :count] = 1
            joined = pad_sequence(rows, batch_first=True)
            whole = own["all"](count == most for count in counts)
            return joined, torch.zeros(2, 0) if whole else mask, rows[0][: own["len"](first)].view(-1, 3)


@pytest.mark.parametrize("traced_at", [(5, 9), (8, 6)], ids=str)
def test_what_fills_up_to_a_multiple_holds_for_all_lengths_whichever_is_the_longer(traced_at):
    dims = tuple({0: torch.export.Dim(name, min=2, max=64)} for name in ("first", "second"))
    program = torch.export.export(Filled(), tuple(map(torch.rand, traced_at, (3, 3))), dynamic_shapes=dims, strict=False).module()
    for counts in ((3, 14), (14, 3), (8, 4), (7, 8)):
        rows = [torch.rand(count, 3) for count in counts]
        joined, mask, first = program(*rows)
        filled = [-(-count // 4) * 4 for count in counts]
        assert joined.shape == (2, max(filled), 3)
        assert mask.sum(1).tolist() == filled
        assert torch.equal(first, rows[0])
        for got, row, full in zip(joined, rows, filled, strict=True):
            assert torch.equal(got[: len(row)], row)
            assert torch.equal(got[len(row) : full], row[-1:].expand(full - len(row), 3))
            assert not got[full:].any()


def test_a_set_of_open_lengths_has_those_that_are_not_surely_the_same():
    class Distinct(nn.Module):
        def forward(self, first, second):
            with open_lengths(bare()):
                own, (one, two) = vars(pipeline_flux), (first.shape[0], second.shape[0])
                counts = own["len"](own["set"]([one, one, one + 0])), own["len"](own["set"](each for each in (one, two, two, 3)))
                assert own["set"]([1, 2, 2]) == {1, 2}
                assert own["set"]() == set()
            return first[:1] * counts[0] + second[:1] * counts[1]

    dims = tuple({0: torch.export.Dim(name, min=2, max=64)} for name in ("first", "second"))
    program = torch.export.export(Distinct(), (torch.ones(4, 1), torch.ones(5, 1)), dynamic_shapes=dims, strict=False).module()
    for counts in ((4, 5), (6, 6)):
        assert program(torch.ones(counts[0], 1), 10 * torch.ones(counts[1], 1)).item() == 1 + 30


def test_what_python_has_for_lengths_is_its_own_outside_and_for_numbers():
    with open_lengths(bare()):
        own = dict(vars(pipeline_flux))
        assert (own["len"]("abc"), own["len"](torch.ones(4, 2))) == (3, 4)
        assert (own["max"](2, 3), own["max"](["a", "bc"], key=len)) == (3, "bc")
        assert own["all"](each > 1 for each in (2, 3))
        assert not own["all"](each > 2 for each in (2, 3))
        assert (-5 % 4, 7 % 4) == (3, 3)
    assert {"len", "max", "all", "set"}.isdisjoint(vars(pipeline_flux))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("first", [False, True])
def test_rows_are_padded_as_torch_pads_them(side, first):
    rows = [torch.rand(2, 3), torch.rand(4, 3), torch.rand(1, 3)]
    for some in (rows, rows[:1]):
        wanted = pad_sequence(some, batch_first=first, padding_value=7.0, padding_side=side)
        assert torch.equal(padded_rows(some, first, 7.0, side), wanted)


def test_a_tensor_an_open_number_of_times_is_joined_as_often():
    class Joined(nn.Module):
        def forward(self, once, batch):
            with Answered(nothing), open_lengths(bare()):
                return torch.cat([once] * batch.shape[0], dim=0)

    rows, once = torch.export.Dim("rows", min=1, max=8), torch.arange(3.0)[None]
    program = torch.export.export(Joined(), (once, torch.zeros(2, 1)), dynamic_shapes=({}, {0: rows}), strict=False)
    assert torch.equal(program.module()(once, torch.zeros(5, 1)), once.repeat(5, 1))
    assert torch.equal(joined(Repeated(once, 2), 1), torch.cat([once, once], 1))


class Counted(nn.Module):
    """As many rows as a network makes of a text by its length, between 2 and 8 in steps of 2; and the shorter of two texts."""

    def forward(self, text, other):
        share = smallest(1.0, largest(0.0, (torch.sym_float(text.shape[0]) - 4) / 8))
        count = largest(2, smallest(8, math.ceil((2 + share * 6) / 2) * 2))
        longest = largest(text.shape[0], other.shape[0])
        return torch.arange(count), torch.arange(smallest(longest, text.shape[0])), torch.arange(smallest(40, other.shape[0]))


def test_numbers_that_are_computed_of_a_length_stay_open_between_the_least_and_the_most():
    lengths = tuple({0: torch.export.Dim(name, min=2, max=40)} for name in ("text", "other"))
    made = torch.export.export(Counted(), (torch.ones(5), torch.ones(7)), dynamic_shapes=lengths, strict=False).module()
    for length, count in ((2, 2), (4, 2), (5, 4), (8, 6), (12, 8), (40, 8)):
        rows, own, short = made(torch.ones(length), torch.ones(9))
        assert (len(rows), len(own), len(short)) == (count, length, 9)


def test_the_smaller_and_the_larger_of_numbers_are_python_s():
    assert (smallest(3, 2), smallest([3, 2]), largest(3, 2)) == (2, 2, 3)
    assert smallest(["ab", "c"], key=len) == "c"
