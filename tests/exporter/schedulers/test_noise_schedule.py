"""The process that a scheduler becomes is the one that its own tables solve."""

import diffusers
import numpy as np
import pytest

from engines.errors import RecipeError, UnsupportedError
from engines.samplers.ode import Ode
from engines.samplers.table import Eval
from exporter.schedulers.compile_sampler import compile_sampler
from exporter.schedulers.noise_schedule import compile_process
from tests.engines.samplers import gaussians

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_schedulers_noise_levels_and_what_its_model_predicts(prediction, tmp_path):
    process = compile_process("DDIMScheduler", {**SD, "prediction_type": prediction})
    wanted = diffusers.DDIMScheduler(**SD).alphas_cumprod.double().log().numpy()
    np.testing.assert_allclose(process.log_alpha_bar, wanted, rtol=1e-14)  # logarithms round
    np.testing.assert_allclose(process.log_alpha_bar, gaussians.process().log_alpha_bar, rtol=1e-3, atol=1e-7)
    assert process.prediction == prediction
    assert process.provenance.scheduler == "DDIMScheduler"
    process.dump(tmp_path / "p.json")
    assert type(process).load(tmp_path / "p.json") == process


def test_the_models_own_config_counts():
    own = {**SD, "_class_name": "PNDMScheduler", "prediction_type": "v_prediction", "skip_prk_steps": True}
    process = compile_process("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, own)
    assert process.prediction == "v_prediction"
    assert process.log_alpha_bar == compile_process("DDIMScheduler", SD).log_alpha_bar
    assert process.provenance.config["timestep_spacing"] == "trailing"


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_a_schedule_of_zero_terminal_signal_starts_where_there_is_some(name):
    process = compile_process(name, {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
    assert len(process.log_alpha_bar) in {999, 1000}
    assert 10 < process.noisy < 50


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, "no alphas_cumprod"),
        ("EDMEulerScheduler", {}, "no alphas_cumprod"),
        ("CMStochasticIterativeScheduler", {"clip_denoised": False}, "no alphas_cumprod"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "no alphas_cumprod"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, "continuous times"),
    ],
)
def test_what_is_not_variance_preserving_says_so(name, config, told):
    with pytest.raises(UnsupportedError, match=told):
        compile_process(name, config)


STILL = [{"beta_start": 0.0, "beta_end": 0.0}, {"trained_betas": [0.1, 0.2, 0.0, 0.3]}, {"beta_start": 0.0, "beta_end": 0.02}]


@pytest.mark.parametrize("betas", STILL, ids=["never", "in between", "at first"])
def test_a_schedule_whose_signal_does_not_fall_says_so(betas):
    with pytest.raises(UnsupportedError, match="DDIMScheduler adds no noise at some of its times"):
        compile_process("DDIMScheduler", betas)


def test_an_unknown_option_is_a_recipe_error():
    with pytest.raises(RecipeError, match="did you mean"):
        compile_process("DDIMScheduler", {"beta_strat": 1})


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_fine_table_and_the_ode_of_the_same_scheduler_meet(prediction):
    """So times, levels and prediction are read off right: a hundred small steps of Heun go where the flow goes."""
    config = {**SD, "prediction_type": prediction, "use_exponential_sigmas": True}
    process = compile_process("HeunDiscreteScheduler", config)
    table = compile_sampler("HeunDiscreteScheduler", config, 60, 64, 64)
    noise, model = next(gaussians.draws(process, 4)), gaussians.Model(process, 4)
    first = next(op for op in table.ops if isinstance(op, Eval))
    found = Ode(process=process, relative=1e-5, absolute=1e-5).play(model, lambda: noise * np.float32(first.row[0]))
    np.testing.assert_allclose(table.play(model, lambda: noise), found, atol=2e-2)
