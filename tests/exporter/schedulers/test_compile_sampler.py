"""Every scheduler that is linear compiles and proves; every other is refused, with what to change."""

import inspect
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from engines.samplers.table import Draw, Emit, Eval, Table
from exporter.recipe import aliases
from exporter.schedulers import compile_sampler as module
from exporter.schedulers.compile_sampler import compile_sampler, survey
from exporter.schedulers.loop import Loop, drive
from exporter.schedulers.trace import TOLERANCE, prove, trace

# diffusers hands torch tensors to numpy, which numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
GOLDEN = Path(__file__).parent / "golden"
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLAIN = {**SD, "clip_sample": False}
ZERO_SNR = {**PLAIN, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
CASES = {
    "ddim": ("DDIMScheduler", PLAIN, {}),
    "ddim-eta": ("DDIMScheduler", PLAIN, {"eta": 1.0}),
    "ddim-zero-snr": ("DDIMScheduler", ZERO_SNR, {}),
    "ddpm": ("DDPMScheduler", PLAIN, {}),
    "pndm": ("PNDMScheduler", {**SD, "skip_prk_steps": True}, {}),
    "lms": ("LMSDiscreteScheduler", SD, {}),
    "ipndm": ("IPNDMScheduler", {}, {}),
    "euler": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}, {}),
    "euler-karras-churn": ("EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True}, {"s_churn": 0.5}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}, {}),
    "heun": ("HeunDiscreteScheduler", SD, {}),
    "kdpm2": ("KDPM2DiscreteScheduler", SD, {}),
    "kdpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", SD, {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {**SD, "use_karras_sigmas": True}, {}),
    "dpm++3m": ("DPMSolverMultistepScheduler", {**SD, "solver_order": 3}, {}),
    "dpm++sde": ("DPMSolverMultistepScheduler", {**SD, "algorithm_type": "sde-dpmsolver++"}, {}),
    "dpm++single": ("DPMSolverSinglestepScheduler", {**SD, "lower_order_final": True}, {}),
    "deis": ("DEISMultistepScheduler", SD, {}),
    "unipc": ("UniPCMultistepScheduler", SD, {}),
    "unipc-flow": ("UniPCMultistepScheduler", FLOW, {}),
    "sa": ("SASolverScheduler", SD, {}),
    "lcm": ("LCMScheduler", SD, {}),
    "tcd": ("TCDScheduler", SD, {"eta": 0.3}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, {}),
    "flow-lcm": ("FlowMatchLCMScheduler", {"shift": 3.0}, {}),
    "consistency": ("CMStochasticIterativeScheduler", {"clip_denoised": False}, {}),
    "scm": ("SCMScheduler", {}, {}),
    "edm-euler": ("EDMEulerScheduler", {}, {}),
    "edm-dpm++": ("EDMDPMSolverMultistepScheduler", {}, {}),
}
GOLDEN_CASES = {
    "lcm-4": ("lcm", 4),
    "euler-trailing-4": ("euler", 4),
    "ddim-8": ("ddim", 8),
    "dpm++2m-8": ("dpm++2m", 8),
    "unipc-8": ("unipc", 8),
    "euler-ancestral-4": ("euler-ancestral", 4),
}


def compiled(case, steps):
    name, config, step = CASES[case]
    return compile_sampler(name, config, steps, 512, 512, step=step)


@pytest.mark.parametrize("case", CASES)
def test_compiles_and_proves(case):
    for steps in (1, 2, 4) if case == "scm" else (1, 2, 4, 8, 30):
        table = compiled(case, steps)
        print(f"{case} at {steps}: {table.provenance.deviation:.1e}")  # noqa: T201 - shown by pytest -s
        assert table.provenance.deviation < TOLERANCE / 3
        assert table.provenance.height is None


def test_all_twenty_four_classes_are_tried():
    assert len({name for name, _, _ in CASES.values()}) == 24


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_golden_table(name):
    golden, table = Table.load(GOLDEN / f"{name}.json"), compiled(*GOLDEN_CASES[name])
    assert [type(op) for op in table.ops] == [type(op) for op in golden.ops]
    for op, wanted in zip(table.ops[1:], golden.ops[1:], strict=True):
        if not isinstance(op, Draw):
            assert len(op.row) == len(wanted.row)
            np.testing.assert_allclose(op.row, wanted.row, rtol=1e-6, atol=1e-6)
        if isinstance(op, Eval):
            assert op.t == wanted.t


def test_lcm_is_the_sampler_of_four_lines():
    table = compiled("lcm", 4)
    assert [op.t for op in table.ops if isinstance(op, Eval)] == [999, 759, 499, 259]
    assert sum(isinstance(op, Draw) for op in table.ops) == 4


@pytest.mark.parametrize("bend", ["clip_sample", "thresholding", "clip_denoised"])
def test_what_bends_is_refused_with_the_option_to_change(bend):
    names = {
        "clip_sample": ["DDIMScheduler", "DDPMScheduler", "LCMScheduler"],
        "thresholding": ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"],
        "clip_denoised": ["CMStochasticIterativeScheduler"],
    }
    for name in names[bend]:
        off = {"clip_sample": False} if bend == "thresholding" and name == "DDIMScheduler" else {}
        with pytest.raises(UnsupportedError, match=rf"linear.*{bend}: false"):
            compile_sampler(name, {**off, bend: True}, 4, 512, 512)


@pytest.mark.parametrize("name", ["DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"])
def test_brownian_trees_are_refused(name):
    with pytest.raises(UnsupportedError, match="sde-dpmsolver"):
        compile_sampler(name, {}, 4, 512, 512)


def test_unknown_names_and_options(monkeypatch):
    with pytest.raises(RecipeError, match=r"sampler\.scheduler: .* did you mean 'DDIMScheduler'"):
        compile_sampler("DDIMSheduler", {}, 4, 512, 512)
    with pytest.raises(RecipeError) as caught:
        compile_sampler("DDIMScheduler", {"clip_smaple": False}, 4, 512, 512, step={"etta": 1.0}, timesteps=(999, 499))
    assert [part in str(caught.value) for part in ("'clip_sample'", "'eta'", "not 4 steps")] == [True] * 3
    with pytest.raises(UnsupportedError, match="no own sigmas"):
        compile_sampler("DDIMScheduler", PLAIN, 2, 512, 512, sigmas=(1.0, 0.5))
    with pytest.raises(UnsupportedError, match=r"constructor.*one of"):
        compile_sampler("EulerDiscreteScheduler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, 2, 512, 512)
    monkeypatch.setattr(
        module.schedulers,
        "AbsentScheduler",
        type("Absent", (), {"_backends": ["torch", "absent_library"]}),
        raising=False,
    )
    with pytest.raises(MissingDependency, match="absent_library is not"):
        compile_sampler("AbsentScheduler", {}, 4, 512, 512)


def test_the_models_own_config_may_be_of_another_class():
    own = {**PLAIN, "_class_name": "PNDMScheduler", "skip_prk_steps": True, "lambda_min_clipped": -float("inf")}
    table = compile_sampler("DDIMScheduler", {"timestep_spacing": "trailing"}, 4, 512, 512, own=own)
    assert table.provenance.config == {**PLAIN, "timestep_spacing": "trailing"}
    infinite = compile_sampler("DPMSolverMultistepScheduler", {}, 4, 512, 512, own=own).provenance
    assert infinite.config["lambda_min_clipped"] == "-inf"
    assert Table.model_validate_json(table.model_dump_json()) == table


def test_what_the_networks_output_means_is_not_lost():
    with pytest.raises(RecipeError, match=r"IPNDMScheduler has no prediction_type, .* these have it: .*DDIMScheduler"):
        compile_sampler("IPNDMScheduler", {}, 4, 512, 512, own={**PLAIN, "prediction_type": "v_prediction"})
    with pytest.raises(RecipeError, match=r"PNDMScheduler has no rescale_betas_zero_snr"):
        compile_sampler("PNDMScheduler", {}, 4, 512, 512, own=ZERO_SNR)


def test_own_times():
    table = compile_sampler("LCMScheduler", SD, 2, 512, 512, timesteps=(999, 399))
    assert [op.t for op in table.ops if isinstance(op, Eval)] == [999, 399]
    assert table.provenance.timesteps == (999, 399)
    # Multistep sampling of a consistency model (2303.01469, algorithm 1): from noise to clean and back, at chosen times.
    consistency = compile_sampler("CMStochasticIterativeScheduler", {"clip_denoised": False}, 3, 64, 64, timesteps=(39, 22, 0))
    assert [type(op).__name__ for op in consistency.ops] == ["Draw", *["Eval", "Draw"] * 3, "Emit"]
    assert len({op.t for op in consistency.ops if isinstance(op, Eval)}) == 3
    flow = compile_sampler("FlowMatchEulerDiscreteScheduler", {}, 2, 512, 512, sigmas=(1.0, 0.25))
    assert [op.t for op in flow.ops if isinstance(op, Eval)] == [1000, 250]


def test_only_dynamic_shifting_depends_on_the_size():
    dynamic = {"use_dynamic_shifting": True}
    small, large = (
        compile_sampler("FlowMatchEulerDiscreteScheduler", dynamic, 4, size, size, sigmas=(1.0, 0.75, 0.5, 0.25))
        for size in (256, 1024)
    )
    assert (small.provenance.height, large.provenance.width) == (256, 1024)
    assert small.ops != large.ops
    # Flux at 1024²: mu is 1.15, so a sigma of 1/2 becomes e^1.15 / (e^1.15 + 1).
    assert large.ops[3].t == pytest.approx(1000 * np.exp(1.15) / (np.exp(1.15) + 1), rel=1e-6)
    assert compile_sampler("DDIMScheduler", PLAIN, 4, 256, 256) == compile_sampler("DDIMScheduler", PLAIN, 4, 1024, 512)


def remade(case, steps, **kwargs):
    name, config, step = CASES[case]
    return lambda: getattr(diffusers, name)(**config), Loop(steps, step, **kwargs)


def test_an_altered_coefficient_or_time_is_caught():
    table, (make, told) = compiled("dpm++2m", 4), remade("dpm++2m", 4)
    assert prove(table, make, told) == table.provenance.deviation
    for index in (3, len(table.ops) - 1):
        op = table.ops[index]
        wrong = op.model_copy(update={"row": (op.row[0] * 1.01, *op.row[1:])})
        ops = (*table.ops[:index], wrong, *table.ops[index + 1 :])
        with pytest.raises(UnsupportedError, match="off, and"):
            prove(table.model_copy(update={"ops": ops}), make, told)
    late = table.ops[1].model_copy(update={"t": 1.0})
    with pytest.raises(UnsupportedError, match="times or draws"):
        prove(table.model_copy(update={"ops": (table.ops[0], late, *table.ops[2:])}), make, told)


def test_a_broken_player_is_caught(monkeypatch):
    play = Table.play
    monkeypatch.setattr(Table, "play", lambda self, *args: play(self, *args) * np.float32(1.001))
    with pytest.raises(UnsupportedError, match="not a linear sampler"):
        compiled("ddim", 4)
    monkeypatch.setattr(Table, "play", lambda self, denoise, *args: play(self, lambda x, t: denoise(x, t + 1), *args))
    with pytest.raises(UnsupportedError, match="inf off"):
        compiled("ddim", 4)


class Odd(diffusers.EulerDiscreteScheduler):
    """Does what `how` says to the sample before it steps."""

    how = staticmethod(lambda _self, sample: sample)

    def step(self, output, time, sample, **kwargs):
        return super().step(output, time, self.how(sample), **kwargs)


def odd(monkeypatch, how):
    monkeypatch.setattr(Odd, "how", how)
    monkeypatch.setattr(module.schedulers, "Odd", Odd, raising=False)
    return compile_sampler("Odd", {}, 3, 512, 512)


def test_refusals_of_odd_schedulers(monkeypatch):
    def late(self, sample):
        self.timesteps[1:] += sample.mean()
        return sample

    def threshold(_, sample):
        return sample.clamp(max=20 * sample.abs().mean() + 10)

    assert odd(monkeypatch, lambda _, sample: 2 * sample).provenance.deviation < 1e-6
    for how, text in (
        (late, "times or draws depend on the data|failed in"),
        (threshold, "not a linear sampler"),
        (lambda _, sample: sample + 0.1, "adds a constant"),
        (lambda _, sample: sample * float("inf"), "NaN, infinity"),
        (lambda _, sample: sample + torch.rand_like(sample), "torch's rand_like"),
        (lambda _, sample: sample * torch.rand(()), "torch's rand;"),
        (lambda _, sample: sample + torch.randn(1), "another shape"),
        (lambda _, sample: sample * np.random.default_rng().uniform(), "not a linear sampler"),
        (lambda _, sample: sample + sum(torch.randn_like(sample) for _ in range(20)), "more than 28 latents"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            odd(monkeypatch, how)


def test_times_that_depend_on_data_are_refused(monkeypatch):
    def late(self, sample):
        self.timesteps[-1] = sample.abs().sum()
        self.sigmas = self.sigmas
        return sample

    with pytest.raises(UnsupportedError, match="times or draws depend on the data"):
        odd(monkeypatch, late)


@pytest.mark.parametrize("case", ["ddim", "euler-ancestral", "dpm++2m", "unipc", "heun", "lcm", "flow-euler"])
def test_closed_loop_with_a_bent_model_is_no_further_from_float64_than_diffusers(case):
    steps, shape = 20, (2, 4, 8, 8)
    make, told = remade(case, steps)
    table = compiled(case, steps)
    noise = np.random.Generator(np.random.Philox(7)).standard_normal((40, *shape), dtype=np.float32)

    def bent(latent, time, xp):
        return xp.tanh(latent * 0.7) + 0.1 * xp.sin(latent * 3.0) + time * 1e-4

    def diffusers_result():
        draws = iter(noise)
        return drive(make(), told, lambda x, t: bent(x, t, torch), lambda _: torch.from_numpy(next(draws).copy()), shape).numpy()

    def exact():
        history, draws = [], iter(noise)
        for op in table.ops:
            mixed = None if isinstance(op, Draw) else sum(c * h for c, h in zip(op.row, history, strict=False))
            if isinstance(op, Emit):
                return mixed
            history.append(next(draws).astype(np.float64) if mixed is None else bent(mixed, op.t, np))
        return None

    draws = iter(noise)
    played = table.play(lambda x, t: bent(x, t, np), lambda: next(draws))
    wanted, reference = exact(), diffusers_result()
    scale = np.linalg.norm(wanted)
    assert np.linalg.norm(played - wanted) / scale < 5e-6
    assert np.linalg.norm(played - reference) / scale < 5e-6


def test_a_step_count_that_diffusers_refuses_is_a_sentence():
    with pytest.raises(UnsupportedError, match="LCMScheduler failed in set_timesteps: ValueError"):
        compile_sampler("LCMScheduler", SD, 100, 512, 512)


def test_trace_alone_claims_no_proof():
    make, told = remade("ddim", 2)
    table = trace(make, told, compiled("ddim", 2).provenance.model_copy(update={"deviation": 0.5}))
    assert table.provenance.deviation == 0.5
    assert table.ops == compiled("ddim", 2).ops


def test_survey_lists_what_really_compiles():
    rows = {row.scheduler: row for row in survey()}
    good = {name for name, row in rows.items() if not row.reason}
    assert {name for name, _, _ in CASES.values()} <= good
    assert all(row.deviation < TOLERANCE and row.largest > 0 for row in rows.values() if not row.reason)
    assert rows["DDIMScheduler"].config == {"clip_sample": False, "thresholding": False}
    assert (rows["DDIMScheduler"].stochastic, rows["DDPMScheduler"].stochastic) == (False, True)
    assert (rows["HeunDiscreteScheduler"].evaluations, rows["DDIMScheduler"].evaluations) == (15 / 8, 1)
    assert "Brownian" in rows["DPMSolverSDEScheduler"].reason


def test_every_shown_name_compiles_where_its_class_has_the_spacing():
    assert len(aliases.shown_names()) == len(set(aliases.shown_names())) > 100
    compiled = 0
    for name in aliases.shown_names():
        kind, config = aliases.expand(name)
        if kind == "DPMSolverSDEScheduler":
            with pytest.raises(UnsupportedError, match="Brownian"):
                compile_sampler(kind, config, 6, 64, 64)
        elif config.keys() <= inspect.signature(getattr(diffusers, kind).__init__).parameters.keys():
            bends = {"clip_sample": False} if kind in {"DDIMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler"} else {}
            assert compile_sampler(kind, config | bends, 6, 64, 64).ops
            compiled += 1
        else:
            with pytest.raises(RecipeError, match="has no option"):
                compile_sampler(kind, config, 6, 64, 64)
    assert compiled > 80


def test_a_misspelling_is_answered_with_the_name_that_was_meant():
    for name, meant in (
        ("DPM++ 2M Karas", "DPM++ 2M Karras"),
        ("eulr a", "Euler a"),
        ("EulerDiscretScheduler", "EulerDiscreteScheduler"),
    ):
        with pytest.raises(RecipeError, match="did you mean") as caught:
            compile_sampler(name, {}, 3, 64, 64)
        assert repr(meant) in str(caught.value)
    for name in ("DPM++ 2S a Karras", "dpmpp_2s_ancestral"):
        with pytest.raises(RecipeError, match=r"no scheduler named .*the nearest that it has is 'DPM\+\+ 2M SDE'"):
            compile_sampler(name, {}, 3, 64, 64)
