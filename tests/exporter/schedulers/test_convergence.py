"""The measured order is the order that the sampler is known to have."""

import math

import numpy as np
import pytest

from exporter.schedulers.compile_sampler import compile_sampler
from exporter.schedulers.convergence import levels, order, worst

PLAIN = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize(
    ("name", "config", "known"),
    [
        ("DDIMScheduler", {"clip_sample": False}, 1),
        ("EulerDiscreteScheduler", {}, 1),
        ("FlowMatchEulerDiscreteScheduler", {}, 1),
        ("EDMEulerScheduler", {}, 1),
        ("DPMSolverMultistepScheduler", {}, 2),
        ("DPMSolverMultistepScheduler", {"solver_order": 1}, 1),
        ("HeunDiscreteScheduler", {}, 2),
        ("FlowMatchHeunDiscreteScheduler", {}, 2),
        ("EDMDPMSolverMultistepScheduler", {}, 2),
    ],
)
def test_measured_is_known(name, config, known):
    assert order(name, config) == pytest.approx(known, abs=0.25)


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler"])
def test_samplers_that_draw_have_none(name):
    assert order(name, {"clip_sample": False} if name != "EulerAncestralDiscreteScheduler" else {}) is None


def test_nor_the_way_back():
    assert order("DDIMInverseScheduler", {"clip_sample": False}) is None
    assert order("DPMSolverMultistepInverseScheduler", {}) is None


def test_levels_are_the_schedulers():
    from diffusers import DDIMScheduler

    alphas = DDIMScheduler(**PLAIN).alphas_cumprod
    table = compile_sampler("DDIMScheduler", {**PLAIN, "clip_sample": False}, 5, 64, 64)
    for op in table.ops:
        if op.op == "eval":
            share = float(alphas[int(op.t)])
            assert levels(op.preview) == pytest.approx((math.sqrt(share), math.sqrt(1 - share)), rel=1e-4)
    assert levels((1.0, -0.25)) == (0.75, 0.25)
    noise = 2.0
    skip, out, scale = 0.25 / (noise**2 + 0.25), noise * 0.5 / math.hypot(noise, 0.5), 1 / math.hypot(noise, 0.5)
    assert levels((skip / scale, out)) == pytest.approx((scale, scale * noise))


def test_a_wrong_coefficient_is_an_error_that_no_step_count_removes():
    right = compile_sampler("DDIMScheduler", {"clip_sample": False}, 80, 64, 64)
    (index,) = (i for i, op in enumerate(right.ops) if op.op == "eval" and op.t == right.ops[20].t)
    op = right.ops[index]
    wrong = op.model_copy(update={"row": (op.row[0] * 1.05, *op.row[1:])})
    spoilt = right.model_copy(update={"ops": (*right.ops[:index], wrong, *right.ops[index + 1 :])})
    assert worst(spoilt) > 1.5 * worst(right)
    assert np.isfinite(worst(spoilt))
