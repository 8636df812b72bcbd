"""Processes made by an enemy: at worst wrong, and then a BundleError or an UnsupportedError says so; no loop without an end."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import BundleError, UnsupportedError
from engines.noise_process import Process
from engines.samplers.adaptive import Adaptive
from engines.samplers.ode import Ode
from engines.samplers.predictor_corrector import PredictorCorrector
from tests.engines import small

NUMBER = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.text(max_size=3))
FALLING = st.lists(st.floats(-50, -1e-12), min_size=2, max_size=5, unique=True).map(lambda values: sorted(values, reverse=True))


def play_if_it_loads(path):
    """Whether the file is a process; whatever it is, no other error may come of it."""
    try:
        process = Process.load(path)
    except BundleError:
        return False
    for sampler in (
        Adaptive(process=process, relative=1, absolute=1, max_steps=40),
        Ode(process=process, relative=1, absolute=1, max_steps=40),
        PredictorCorrector(process=process, steps=3),
    ):
        noise = np.random.default_rng(0)
        with np.errstate(over="ignore", invalid="ignore"):  # what a hostile schedule makes of float32 is for the checks to find
            try:
                played = sampler.play(
                    lambda latent, *_: np.tanh(latent),
                    lambda: noise.standard_normal((1, 1, 2, 2), dtype=np.float32),  # noqa: B023
                )
            except UnsupportedError:
                continue
        assert played.shape == (1, 1, 2, 2)
    return True


@given(values=st.one_of(FALLING, st.lists(NUMBER, max_size=4)), prediction=st.sampled_from(["epsilon", "v_prediction", "sample"]))
@settings(max_examples=50, deadline=None)
def test_any_schedule(tmp_path_factory, values, prediction):
    path = tmp_path_factory.getbasetemp() / "process.json"
    content = {**json.loads(small.process(2).model_dump_json()), "log_alpha_bar": values, "prediction": prediction}
    path.write_text(json.dumps(content))
    play_if_it_loads(path)


def test_every_byte_flipped(tmp_path):
    path = tmp_path / "p.json"
    small.process(4).dump(path)
    data = bytearray(path.read_bytes())
    loaded = 0
    for index in range(len(data)):
        data[index] ^= 0x01
        path.write_bytes(data)
        loaded += play_if_it_loads(path)
        data[index] ^= 0x01
    assert loaded  # a changed number may still be a schedule: the manifest's digest is what finds it
