"""The loop and its dice: every normal noise is supplied from outside, and nothing is left behind."""

import threading

import diffusers
import pytest
import torch

from engines.errors import UnsupportedError
from engines.samplers.table import Eval
from exporter.schedulers import loop
from exporter.schedulers.compile_sampler import compile_sampler
from exporter.schedulers.loop import InjectedNoise


def test_what_a_pipeline_tells_that_the_loop_does_by_itself_is_no_option():
    told = {"max_timesteps": 1.5708, "intermediate_timesteps": 1.3}
    assert loop.beyond_its_own(diffusers.SCMScheduler, 2, told) == {}
    with pytest.raises(UnsupportedError, match=r"tells SCMScheduler intermediate_timesteps 1.3 for 4 steps") as refused:
        loop.beyond_its_own(diffusers.SCMScheduler, 4, told)
    assert "model.call: {intermediate_timesteps: null}" in str(refused.value)
    told = {"sigmas": [1.0, 0.5], "mu": 0.7}
    assert loop.beyond_its_own(diffusers.FlowMatchEulerDiscreteScheduler, 2, told) == told


def test_attention_is_no_dice_unless_it_drops():
    given = [torch.ones(1, 2, 3, 4)] * 3
    attend = torch.nn.functional.scaled_dot_product_attention
    with InjectedNoise(torch.zeros):
        assert torch.equal(attend(*given), attend(*given, dropout_p=0.0))
        assert torch.equal(attend(*given, None, 0.0), given[0])
        for options in ((None, 0.5), (None,)):
            with pytest.raises(UnsupportedError, match="scaled_dot_product_attention"):
                attend(*given, *options, **({} if len(options) > 1 else {"dropout_p": 0.5}))


def test_dice_answer_every_spelling_of_normal_noise():
    asked = []

    def draw(shape):
        asked.append(shape)
        torch.randn(1)  # not intercepted: this is the supplier
        return torch.full(shape, float(len(asked)))

    before = torch.get_rng_state()
    with InjectedNoise(draw):
        got = [
            torch.randn(2, 3),
            torch.randn((2,), dtype=torch.float64, generator=None),
            torch.randn(size=(4,)),
            torch.randn_like(torch.zeros(5)),
            torch.normal(1.0, 2.0, (3,)),
            torch.normal(torch.ones(3), 2.0),
            torch.normal(torch.ones(3, 1), std=torch.ones(2)),
            torch.zeros(2, 2).normal_(),
            torch.zeros(2).normal_(1.0, std=3.0),
        ]
    assert asked == [(2, 3), (2,), (4,), (5,), (3,), (3,), (3, 2), (2, 2), (2,)]
    assert [float(value.flatten()[0]) for value in got] == [1, 2, 3, 4, 11, 13, 8, 8, 28]
    assert got[1].dtype == torch.float64
    torch.set_rng_state(before)
    assert not torch.equal(torch.randn(3), torch.randn(3))  # nothing is left behind


def test_dice_of_two_threads_do_not_meet():
    seen = {}

    def run(value):
        with InjectedNoise(lambda shape: torch.full(shape, value)):
            seen[value] = {float(torch.randn(1)) for _ in range(200)}

    threads = [threading.Thread(target=run, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {1.0: {1.0}, 2.0: {2.0}}


def test_quirks_name_schedulers_that_exist():
    assert all(hasattr(diffusers, name) for name in loop._QUIRKS)
    own = compile_sampler("SCMScheduler", {}, 2, 512, 512, timesteps=(1.5, 1.0, 0.0))
    assert [op.t for op in own.ops if isinstance(op, Eval)] == [1.5, 1.0]
    assert own.ops[1].row == (0.5,)  # its latents have the standard deviation of the data
