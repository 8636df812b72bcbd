"""Whatever a scheduler's config says, it ends in a table that plays as diffusers steps, or in a sentence; never in a traceback.

`T2I_EXAMPLES=10000 pytest tests/exporter/schedulers/test_scheduler_configs.py` makes more of them; `-s` counts how they ended.
"""

import collections
import inspect
import os
import re

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from engines.samplers.table import Eval
from exporter.schedulers.compile_sampler import configure
from exporter.schedulers.loop import InjectedNoise, Unrounded

pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES = int(os.environ.get("T2I_EXAMPLES", "120"))
NAMES = sorted(
    name
    for name in dir(diffusers.schedulers)
    if isinstance(kind := getattr(diffusers.schedulers, name), type)
    and issubclass(kind, diffusers.SchedulerMixin)
    and hasattr(kind, "step")
)
#: Those that people have are drawn more often.
COMMON = [
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler",
    "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler",
]  # fmt: skip
#: Texts that diffusers' schedulers take, and some that they do not.
TEXTS = [
    "epsilon", "v_prediction", "sample", "flow_prediction", "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "linspace",
    "leading", "trailing", "dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "midpoint", "heun", "bh1", "bh2",
    "logrho", "zero", "sigma_min", "discrete", "continuous", "log_linear", "karras", "exponential", "learned", "learned_range",
    "fixed_small", "fixed_large", "fixed_small_log", "", "true", "0.012", "Karras", "ε",
]  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2000), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(TEXTS),
    st.lists(st.floats(0, 1), max_size=4), st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
)  # fmt: skip


def plausible(parameter):
    """Values near what the class takes there."""
    default, words = parameter.default, re.findall(r"'([^']*)'", str(parameter.annotation))
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.sampled_from([50, 100, default, default] if default >= 1000 else [0, 1, 2, 3, default, default + 1, 50, 100])
    if isinstance(default, float):
        return st.sampled_from([0.0, 1e-4, 0.00085, 0.012, 0.5, 1.0, 3.0, 14.6, 80.0, 700.0, default])
    if isinstance(default, str):
        return st.sampled_from([*(words or [default]) * 8, *TEXTS])
    return st.sampled_from([None, None, None, default, 0.03, 14.6, 29.2, *words])


@st.composite
def asked(draw):
    """A class, config, the model's own config, and arguments, mostly near what works."""
    name = draw(st.one_of(st.sampled_from(COMMON), st.sampled_from(NAMES)))
    kind = getattr(diffusers.schedulers, name)
    parameters = [each for key, each in inspect.signature(kind.__init__).parameters.items() if key != "self"]
    bends = {each.name: False for each in parameters if each.name in {"clip_sample", "thresholding", "clip_denoised"}}

    def some(most):
        chosen = (
            draw(st.lists(st.sampled_from(parameters), unique_by=lambda each: each.name, max_size=most)) if parameters else []
        )
        return {each.name: draw(st.one_of(*[plausible(each)] * 15, ODD)) for each in chosen}

    own = draw(st.one_of(st.none(), st.just({"_class_name": name, "beta_schedule": "scaled_linear", **some(2)})))
    steps = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 13, 20]))
    arguments = {"own": own}
    if draw(st.integers(0, 9)) == 0:
        arguments["timesteps"] = draw(st.lists(st.integers(0, 1200), min_size=steps, max_size=steps))
    if draw(st.integers(0, 9)) == 0:
        arguments["sigmas"] = sorted(draw(st.lists(st.floats(0, 20), min_size=steps, max_size=steps + 1)), reverse=True)
    if draw(st.integers(0, 5)) == 0:
        takes = [
            key for key in inspect.signature(kind.step).parameters if key in {"eta", "s_churn", "s_noise", "s_tmin", "s_tmax"}
        ]
        arguments["step"] = {key: draw(st.sampled_from([0.0, 0.3, 1.0])) for key in takes}
    return name, {**bends, **some(3)}, steps, draw(st.booleans()), arguments


def stepped(configured, noise, answer):
    """What diffusers makes of the noise, in its type; and the largest latent on the way, whose rounding it may be off by."""
    scheduler, loop, draws = configured.make(), configured.loop, iter(noise)
    own = {key: list(value) for key in ("timesteps", "sigmas") if (value := getattr(loop, key)) is not None}
    more = {"mu": loop.mu} if loop.mu is not None else {}
    if isinstance(scheduler, diffusers.SCMScheduler):
        more |= {"intermediate_timesteps": 1.3 if loop.steps == 2 and not own else None}
        more |= {"max_timesteps": None, "num_inference_steps": loop.steps} if own else {}
    scheduler.set_timesteps(**(own or {"num_inference_steps": loop.steps}), **more)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    latent = torch.from_numpy(next(draws)) * getattr(scheduler, "init_noise_sigma", 1.0)
    times, largest = scheduler.timesteps, 0.0
    if isinstance(scheduler, diffusers.SCMScheduler):
        times, latent = times[:-1], latent * scheduler.config.sigma_data
    for time in times:
        seen = scheduler.scale_model_input(latent, time) if hasattr(scheduler, "scale_model_input") else latent
        output = torch.from_numpy(answer(seen.numpy().astype(np.float32), float(time)).astype(noise.dtype))
        largest = max(largest, float(latent.abs().max()))
        with Unrounded(), InjectedNoise(lambda _: torch.from_numpy(next(draws))):
            latent = scheduler.step(output, time, latent, **loop.step).prev_sample
    return latent.numpy(), max(largest, float(latent.abs().max()))


def answer(latent, time):
    """Some model that bends, and whose answer hardly magnifies what its input is off by."""
    return (np.float32(0.5) * np.tanh(np.float32(0.1) * latent) + np.float32(0.2) * np.cos(np.float32(time))).astype(np.float32)


ENDS: collections.Counter[str] = collections.Counter()


@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 1000, suppress_health_check=list(HealthCheck)
)
@given(asked())
def check(wish):
    name, config, steps, image, arguments = wish
    try:
        configured = configure(name, config, steps, 64, 64, **arguments)
        table = configured.table()
        if image and steps < 5:
            configured.starts()
    except (RecipeError, UnsupportedError, MissingDependency) as error:
        ENDS[type(error).__name__] += 1
        if name not in str(error) and "sampler." not in str(error):
            pytest.fail(f"{error} does not say which scheduler it is about")
        return
    ENDS["table"] += 1
    if not all(abs(op.t) < 1e6 for op in table.ops if isinstance(op, Eval)):
        return  # where the answer would be float32's rounding of the time
    random = np.random.Generator(np.random.Philox(steps))
    noise = random.standard_normal((len(table.ops), 1, 2, 3, 4), dtype=np.float32)
    wanted, largest = stepped(configured, noise.copy(), answer)
    own = np.abs(wanted - stepped(configured, noise.astype(np.float64), answer)[0]).max()  # what diffusers rounds away itself
    draws = iter(noise)
    got = table.play(answer, lambda: next(draws))
    terms = max(largest, float(np.abs(wanted).max()), *(abs(value) for op in table.ops for value in getattr(op, "row", ())))
    assert np.abs(got - wanted).max() <= 1e-4 * steps * terms + 2 * own, (np.abs(got - wanted).max(), terms, own)


def test_every_config_is_a_table_or_a_sentence():
    ENDS.clear()
    check()
    print(dict(ENDS))  # noqa: T201 - shown by pytest -s
    assert ENDS["table"] > 0.1 * EXAMPLES  # which examples are tried changes with the code's own numbers
    assert ENDS["UnsupportedError"] + ENDS["RecipeError"] > 0.2 * EXAMPLES


@pytest.mark.parametrize(
    ("name", "own", "where"),
    [
        ("SCMScheduler", {"sigma_data": None}, "the scale of its first noise"),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "max_shift": None}, "the shift of its times"),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "max_image_seq_len": 256}, "the shift of its times"),
    ],
)
def test_what_a_pipeline_computes_with_a_config_fails_in_a_sentence_too(name, own, where):
    with pytest.raises(UnsupportedError, match=rf"{name} failed in {where}: .*Error") as caught:
        configure(name, {}, 1, 64, 64, own={"_class_name": name, **own}).table()
    assert "sampler" in str(caught.value)


def test_a_config_that_float32_hardly_holds_is_a_table_all_the_same():
    own = {"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 1.192092896e-07, "num_train_timesteps": 50}
    configured = configure("FlowMatchHeunDiscreteScheduler", {}, 3, 64, 64, own=own)
    table = configured.table()
    noise = np.random.default_rng(0).standard_normal((len(table.ops), 1, 2, 3, 4), dtype=np.float32)
    rounded, exact = (stepped(configured, noise.astype(kind), answer)[0] for kind in (np.float32, np.float64))
    draws = iter(noise)
    got = table.play(answer, lambda: next(draws))
    assert np.abs(rounded - exact).max() > 1e-3, "diffusers divides by a noise of next to nothing"
    np.testing.assert_allclose(got, exact, atol=1e-4)
