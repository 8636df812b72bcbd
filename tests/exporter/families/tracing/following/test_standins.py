"""What stands in for scheduler, noise, scales and lengths while a pipeline's own code is followed."""

import inspect

import pytest
import torch
from diffusers import DDPMWuerstchenScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler
from torch import nn

from exporter.families.tracing.following import standins
from exporter.families.tracing.following.open_scale import OpenScale
from exporter.families.tracing.following.origins import STEP, Origins, marked, origins
from exporter.families.tracing.following.standins import Absent, Answered, Finished, Grid, Unreached, outlined


def nothing(_shape):
    raise AssertionError("no noise is to be drawn")


def test_a_scheduler_tells_what_it_was_told_and_changes_nothing():
    real, grid, seen = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), Grid(), []
    made = standins.scheduler(real, torch.tensor([7.0, 8.0]), lambda *args: seen.append(args), grid)
    assert isinstance(made, FlowMatchEulerDiscreteScheduler)
    assert made.config.use_dynamic_shifting
    takes = inspect.signature(made.set_timesteps).parameters
    assert {"sigmas", "mu", "timesteps"} <= takes.keys()
    made.set_timesteps(sigmas=[1.0, 0.5], mu=0.4, device="cpu")
    assert grid.asked == {"sigmas": [1.0, 0.5], "mu": 0.4}
    assert [time.tolist() for time in made.timesteps] == [[7.0, 8.0]]
    made.set_begin_index(0)
    made.step("output", "time", "sample", return_dict=False)
    ((output, time, sample, options),) = seen
    assert (output, time, sample, options["return_dict"]) == ("output", "time", "sample", False)
    assert made.scale_model_input("sample", 7) == "sample", "for who asks whether its class is one that has none"
    assert (grid.begins, grid.scales) == (True, False)
    assert real.timesteps is not made.timesteps


def test_a_number_that_is_joined_for_a_batch_is_one_a_picture_already():
    asked = torch.tensor([3, 4])
    with Answered(nothing):
        levels = torch.tensor([asked])
        assert torch.cat([levels] * 4).tolist() == [3, 4, 3, 4]  # two branches of two pictures
        assert torch.cat([torch.tensor([1]), torch.tensor([2])]).tolist() == [1, 2]


@pytest.mark.parametrize("kind", [DDPMWuerstchenScheduler, SCMScheduler])
def test_a_scheduler_that_lists_its_arrival_has_it_behind_its_time_and_is_called_by_name(kind):
    seen = []
    made = standins.scheduler(kind(), torch.tensor([0.5]), lambda *args: seen.append(args[:3]), Grid())
    made.set_timesteps(2)
    assert [time.tolist() for time in made.timesteps[:-1]] == [[0.5]]
    made.step(sample="sample", model_output="output", timestep="time")
    assert seen == [("output", "time", "sample")]


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, EulerDiscreteScheduler, SCMScheduler])
def test_the_times_of_a_scheduler_are_of_the_step_as_the_one_that_they_are_made_of(kind):
    """What a network makes of a time alone would be taken for a constant, and what it scales of a hint for the hint alone."""
    made = standins.scheduler(kind(), marked(torch.tensor([0.5]), STEP), lambda *_: None, Grid())
    with Origins():
        made.set_timesteps(1)
        first = next(iter(made.timesteps)) / 1000
    assert origins(first) == {STEP}


def test_what_a_network_that_is_not_asked_gives_is_guided_to_the_same():
    with Answered(nothing):
        assert isinstance(torch.lerp(Absent(), Absent(), OpenScale(torch.ones(1), on=True)), Absent)


def test_a_scale_is_as_wide_as_it_is_where_halves_are_mixed_by_it():
    first, second = torch.rand(2, 3).half(), torch.rand(2, 3).half()
    with Answered(nothing):
        found = torch.lerp(first, second, OpenScale(torch.tensor([4.0, 0.5]), on=True))
    assert found.dtype == torch.float16
    wanted = torch.lerp(first.float(), second.float(), torch.tensor([[4.0], [0.5]]))
    torch.testing.assert_close(found, wanted.half())


def test_what_stands_in_goes_before_what_was_put_on_the_real_one():
    real = FlowMatchEulerDiscreteScheduler()
    real.step = lambda *_, **__: "recorded"
    assert standins.stand_in(real, step=lambda _self: "stands in").step() == "stands in"


def test_an_euler_scheduler_neither_scales_nor_multiplies_noise():
    grid = Grid()
    made = standins.scheduler(EulerDiscreteScheduler(), torch.tensor([7.0]), lambda *_: None, grid)
    assert made.init_noise_sigma == 1.0
    assert made.scale_model_input("sample", 7) == "sample"
    assert grid.scales


def test_noise_that_no_seed_reaches_is_its_mean():
    unseeded, seeded = standins.Unseeded(), torch.Generator()
    with Answered(torch.ones), unseeded:
        own, without = torch.randn((2, 3), generator=seeded), torch.randn((2, 3), generator=None, dtype=torch.float64)
        short = torch.randn(4)
    assert own.tolist() == torch.ones(2, 3).tolist()
    assert (without.tolist(), without.dtype) == (torch.zeros(2, 3).tolist(), torch.float64)
    assert short.tolist() == [0.0] * 4
    assert unseeded.drawn == 2


def test_scales_and_times_become_tensors_and_spread_over_the_guided_batch():
    scale, time = OpenScale(torch.tensor([2.0, 3.0]), on=True), torch.tensor([5.0, 6.0])
    with Answered(nothing):
        assert torch.full([1], scale, dtype=torch.float32).expand(2).tolist() == [2.0, 3.0]
        assert torch.tensor(scale - 1).repeat(4).tolist() == [1.0, 2.0, 1.0, 2.0]
        assert torch.tensor([time / 5]).expand(4).tolist() == pytest.approx([1.0, 1.2, 1.0, 1.2])
        first, second = torch.arange(4.0).chunk(2)
        assert (first.tolist(), second.tolist()) == ([0.0, 1.0], [2.0, 3.0])
        assert [each.shape for each in torch.ones(2, 4).chunk(2, dim=1)] == [(2, 2), (2, 2)]
        assert torch.tensor([1.0]).repeat(3).tolist() == [1.0] * 3
        of_a_step = torch.as_tensor([scale] * 3)[1]  # of a list with one for each step
        blended = of_a_step * torch.ones(2, 1, 2) + (1.0 - of_a_step) * torch.zeros(2, 1, 2)
        left = (1.0 - of_a_step) * torch.ones(2, 2)
    assert blended.tolist() == [[[2.0, 2.0]], [[3.0, 3.0]]]
    assert left.tolist() == [[-1.0, -1.0], [-2.0, -2.0]]


def test_a_time_that_is_repeated_as_if_it_were_one_number_is_as_wide_as_the_guided_batch():
    made = standins.scheduler(FlowMatchEulerDiscreteScheduler(), torch.tensor([7.0, 8.0]), lambda *_: None, Grid())
    with Answered(nothing):
        for number, time in enumerate(made.timesteps):
            assert time.repeat(2).tolist() == [7.0, 8.0]
            assert time.repeat(4).tolist() == [7.0, 8.0, 7.0, 8.0]
            assert number == 0
        assert torch.tensor([1, 2]).repeat(2).tolist() == [1, 2, 1, 2], "what is no time is repeated"


def test_noise_is_answered_and_a_picture_ends_the_call():
    with Answered(lambda shape: torch.full(tuple(shape), 7.0)):
        noise = torch.randn(1, 2)
        assert [row.tolist() for row in noise.tolist()] == [[7.0, 7.0]], "rows of one number a picture stay tensors"
        assert torch.randn((2,), dtype=torch.float64).dtype == torch.float64
        with pytest.raises(Finished) as event:
            torch.ones(1, 2, 2, 3).numpy()
    assert event.value.image.shape == (1, 2, 2, 3)


def test_noise_for_which_no_number_format_is_asked_is_of_the_part_s():
    with Answered(torch.zeros, torch.float16):
        assert torch.randn(2, 3).dtype == torch.float16
        assert torch.randn(2, 3, dtype=torch.float32).dtype == torch.float32


def test_networks_without_memory_give_shapes_and_the_rest_stays_real():
    network = nn.Linear(3, 2, device="meta")
    with torch.no_grad(), outlined():
        found = network(torch.ones(4, 3)) + torch.ones(4, 2)
        assert (found.device.type, found.shape) == ("meta", (4, 2))
        assert not (found > 0).all()
        assert torch.ones(2).sum().item() == 2.0
        assert found.to("cpu").device.type == "meta"
    with pytest.raises(RuntimeError), outlined():
        found.sum().item()


def test_a_mask_that_has_values_selects_as_much_of_what_has_none():
    states = torch.ones(2, 4, 3, device="meta")
    with outlined():
        mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
        assert states[0][mask[0]].shape == (3, 3)
        assert states[mask].shape == (4, 3)
        assert states[:, torch.tensor([0, 2])].shape == (2, 2, 3)
        assert states[states[..., 0] > 0].shape == (8, 3)


def test_what_no_network_computes_takes_part_in_nothing():
    found = Absent()
    one, two = (found[0] * 2.0).chunk(2)
    assert isinstance(torch.cat([one, two]) + 1, Absent)
    assert isinstance(torch.ones(2) * one, Absent)
    with pytest.raises(TypeError, match="gone through where it computes nothing"):
        list(found)


class Masked(nn.Module):
    """Puts one row in all places of a mask, whose number depends on values."""

    def forward(self, states, row):
        with Answered(nothing):
            changed = states * 1
            changed[states[:, 0] > 0] = row
            changed[states > 2] = 0.5
            changed[0] = 7.0
            return changed


def test_what_a_mask_selects_becomes_one_row_however_much_it_is():
    inputs = torch.tensor([[1.0, 2.0], [3.0, -1.0], [-1.0, 3.0], [-2.0, -2.0]]), torch.tensor([[5.0, 6.0]])
    program = torch.export.export(Masked(), inputs, strict=False)
    assert not [node for node in program.graph.nodes if "index_put" in str(node.target)]
    for states in (inputs[0], -inputs[0]):
        wanted = states.clone()
        wanted[states[:, 0] > 0] = inputs[1]
        wanted[states > 2] = 0.5
        wanted[0] = 7.0
        assert torch.equal(program.module()(states, inputs[1]), wanted)
    with Answered(nothing):  # a value for each, which torch counts
        states = torch.zeros(3)
        states[torch.tensor([True, False, True])] = torch.tensor([1.0, 2.0])
    assert states.tolist() == [1.0, 0.0, 2.0]


def test_what_no_network_computes_is_split_into_as_many_as_there_were():
    """As IF takes the noise and the variance out of what its UNet predicts, and puts them together again."""
    noise, variance = Absent((2, 6, 8, 8)).chunk(2)[0].split(3, dim=1)
    assert len(torch.cat([noise + 1, variance], dim=1).split(3, dim=1)) == 2  # type: ignore[list-item]
    assert len(Absent((5, 1)).split(2)) == 3


def test_a_refusal_has_the_line_of_diffusers():
    from diffusers.utils.torch_utils import randn_tensor

    try:
        randn_tensor(None)
    except TypeError as error:
        told = str(standins.refused("SomePipeline", error))
    assert told.startswith("SomePipeline: its own code cannot be followed: TypeError")
    assert "diffusers/utils/torch_utils.py:" in told


def test_a_refusal_says_what_to_install_of_what_diffusers_does_without():
    error = NameError("name 'ftfy' is not defined", name="ftfy")
    assert str(standins.refused("SomePipeline", error)).endswith("pip install ftfy")
    assert "pip" not in str(standins.refused("SomePipeline", NameError("name 'x' is not defined", name="x")))


def test_a_refusal_names_the_component_that_was_computing():
    hint = torch.nn.Linear(2, 2)
    try:
        hint(torch.ones(1, 3))
    except RuntimeError as error:
        told = str(standins.refused("SomePipeline", error, {"unet": None, "controlnet": hint}))
    assert told.startswith("SomePipeline: its own code cannot be followed in controlnet: RuntimeError")


def test_a_refusal_says_in_a_sentence_that_python_goes_by_what_a_network_computes():
    with pytest.raises(NotImplementedError) as raised:
        torch.zeros(4, dtype=torch.long, device="meta").bincount()
    told = str(standins.refused("SomePipeline", raised.value))
    assert "NotImplementedError: aten::bincount counts by the values of what a network computes" in told
    assert "Meta tensors" not in told


def test_no_time_reaches_what_none_reaches():
    time = torch.rand(3)
    with Answered(lambda _: torch.zeros(1)):
        for before in (time[0] < Unreached(), Unreached() > time, not time[0] > Unreached(), not Unreached() < time):
            assert before is True
