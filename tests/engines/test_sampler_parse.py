import numpy as np
import pytest

from engines import sampler_parse
from engines.errors import BundleError, UnsupportedError
from engines.samplers.adaptive import Adaptive
from engines.samplers.ode import Ode
from engines.samplers.predictor_corrector import PredictorCorrector
from tests.engines import small


@pytest.fixture
def path(tmp_path):
    small.process().dump(tmp_path / "process.json")
    return tmp_path / "process.json"


def test_names_are_those_that_solve_a_process():
    assert {"adaptive", "ode", "predictor_corrector"} <= set(sampler_parse.names())
    assert "table" not in sampler_parse.names()


def test_a_name_alone_has_its_defaults(path):
    assert sampler_parse.solver("adaptive", path) == Adaptive(process=small.process())


def test_options_are_read(path):
    found = sampler_parse.solver("adaptive:relative=0.05,absolute=1e-2, max_steps = 7", path)
    assert found == Adaptive(process=small.process(), relative=0.05, absolute=0.01, max_steps=7)
    assert sampler_parse.solver("ode:pair=dormand_prince", path) == Ode(process=small.process(), pair="dormand_prince")
    assert sampler_parse.solver("predictor_corrector:steps=9,corrections=0", path) == PredictorCorrector(
        process=small.process(), steps=9, corrections=0
    )


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ("adaptiv", "no sampler is named 'adaptiv'; did you mean 'adaptive'?"),
        ("", "no sampler is named ''; there are: adaptive, "),
        ("table", "no sampler is named 'table'"),
        ("_process", "no sampler is named '_process'"),
        ("adaptive:relativ=1", "no option 'relativ'; did you mean 'relative'"),
        ("adaptive:process=1", "no option 'process'"),
        ("adaptive:", "write adaptive:key=value"),
        ("adaptive:relative", "write adaptive:key=value"),
        ("adaptive:relative=", "write adaptive:key=value"),
        ("adaptive:relative=1,relative=2", "every key once"),
        ("adaptive:relative=0", r"relative: Input should be greater than 0"),
        ("adaptive:absolute=-0.1", r"absolute: Input should be greater than 0"),
        ("adaptive:relative=nan", r"relative: Input should be"),
        ("adaptive:relative=inf", r"relative: Input should be"),
        ("adaptive:relative=much", r"relative: Input should be a valid number"),
        ("ode:pair=euler", r"pair: Input should be 'bogacki_shampine' or 'dormand_prince'"),
        ("predictor_corrector:steps=1", r"steps: Input should be greater than or equal to 2"),
        ("predictor_corrector:steps=1.5", r"steps: Input should be a valid integer"),
    ],
)
def test_a_wish_that_cannot_be_had_says_what_can(path, wish, told):
    with pytest.raises(UnsupportedError, match=told):
        sampler_parse.solver(wish, path)


def test_what_is_wrong_with_an_option_comes_with_all_options(path):
    with pytest.raises(UnsupportedError, match=r"  relative=0\.1  error allowed[\s\S]*  max_steps=2000  trials"):
        sampler_parse.solver("adaptive:relative=0", path)


def test_a_bundle_without_a_process_says_so():
    with pytest.raises(UnsupportedError, match=r"holds no noise process.*adaptive.*t2iexport build"):
        sampler_parse.solver("adaptive", None)


def test_a_damaged_process_is_a_bundle_error(path):
    path.write_text("{}")
    with pytest.raises(BundleError, match=r"process\.json is not valid"):
        sampler_parse.solver("ode", path)


@pytest.mark.parametrize("wish", ["adaptive:relative=1,absolute=1", "ode:relative=0.1", "predictor_corrector:steps=5"])
def test_every_sampler_plays(path, wish):
    noise = np.random.default_rng(0)
    played = sampler_parse.solver(wish, path).play(
        lambda latent, *_: np.tanh(latent), lambda: noise.standard_normal((2, 4, 2, 2), dtype=np.float32)
    )
    assert played.shape == (2, 4, 2, 2)
    assert played.dtype == np.float32
