import json

import numpy as np
import pytest
from pydantic import ValidationError

from engines.errors import BundleError
from engines.noise_process import CheckedDenoiser, Process
from tests.engines import small
from tests.engines.samplers import gaussians


def test_json_holds_every_bit(tmp_path):
    path, process = tmp_path / "p.json", gaussians.process()
    process.dump(path)
    assert Process.load(path) == process
    assert path.stat().st_size < 40_000


def test_times_and_clocks_are_each_others_inverse():
    process = gaussians.process()
    times = np.linspace(0, 999, 777)
    np.testing.assert_allclose(process.time(process.clock(times)), times, atol=1e-8)
    np.testing.assert_allclose(process.clock(np.arange(1000)), -np.array(process.log_alpha_bar), rtol=1e-9)
    np.testing.assert_allclose(process.clock(np.array([999.0, 0.0])), [process.noisy, process.clean])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_clean_are_what_the_latent_is_mixed_of(prediction):
    process, random = gaussians.process(prediction), np.random.default_rng(0)
    clean, noise = random.standard_normal((2, 3, 2, 8, 8))
    clock = np.array([0.001, 0.7, 5.0])
    signal, sigma = (part.reshape(-1, 1, 1, 1) for part in (np.exp(-clock / 2), np.sqrt(-np.expm1(-clock))))
    answer = {"epsilon": noise, "v_prediction": signal * noise - sigma * clean, "sample": clean}[prediction]
    model = CheckedDenoiser(process, lambda *_: answer.astype(np.float32))
    latent, which = signal * clean + sigma * noise, np.arange(3)
    np.testing.assert_allclose(model.noise(latent, clock, which), noise, atol=2e-5)
    np.testing.assert_allclose(model.clean(latent, clock, which), clean, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"log_alpha_bar": [-1.0]}, "at least 2"),
        ({"log_alpha_bar": [-1.0, -0.5]}, "the signal must fall with time, and does not at time 1"),
        ({"log_alpha_bar": [-1.0, -1.0]}, "does not at time 1"),
        ({"log_alpha_bar": [0.0, -1.0]}, "less than or equal to -0.000000000001"),
        ({"log_alpha_bar": [-1.0, -1e9]}, "greater than or equal to -50"),
        ({"log_alpha_bar": [-1.0, "-2"]}, "valid number"),
        ({"prediction": "flow"}, "epsilon"),
        ({"format": 2}, "1"),
        ({"more": 1}, "not permitted"),
    ],
)
def test_a_damaged_file_is_a_bundle_error(tmp_path, change, told):
    content = {**json.loads(small.process().model_dump_json()), **change}
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=rf"p\.json is not valid[\s\S]*{told}"):
        Process.load(tmp_path / "p.json")


def test_nan_and_a_missing_file_are_bundle_errors(tmp_path):
    (tmp_path / "p.json").write_text(small.process().model_dump_json().replace("-0.001", "NaN", 1))
    with pytest.raises(BundleError, match="NaN is not a number"):
        Process.load(tmp_path / "p.json")
    with pytest.raises(BundleError, match="missing"):
        Process.load(tmp_path / "absent.json")
    with pytest.raises(ValidationError):
        small.process().model_validate({**small.process().model_dump(), "log_alpha_bar": (-1.0, float("nan"))})
