"""A refiner behind its base, through A1111's API."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from tests.engines.serve.live import opened
from tests.engines.serve.test_a1111_api import AT, same


@pytest.mark.parametrize("batching", ["continuous", "fixed"])
def test_a_refiner_ends_what_the_model_began(server, alone, batching):
    body = {"prompt": "a red square", "seed": 4, "cfg_scale": 3, "height": 64, "width": 32, "batch_size": 2}
    asked = {"refiner_checkpoint": "editor", "refiner_switch_at": 0.3}
    status, _, told = server(batching=batching).post(f"{AT}/txt2img", body | asked)
    assert status == 200, told
    common = {"prompts": "a red square", "seed": 4, "images_per_prompt": 2, "guidance_scale": 3.0}
    left = alone(decoded=False, **common, height=64, width=32, denoising_end=0.3)
    for image, wanted in zip(told["images"], alone("editor", **common, image=left, denoising_start=0.3), strict=True):
        same(opened(image), wanted)
    info = json.loads(told["info"])
    assert (info["sd_model_name"], info["all_seeds"]) == ("small", [4, 5])
    assert info["extra_generation_params"]["Refiner"].startswith("editor [")
    assert all("denoising_start: 0.3" in told for told in info["infotexts"])


def test_a_refiner_that_never_begins_changes_nothing(server, alone):
    told = server().post(f"{AT}/txt2img", {"prompt": "sea", "seed": 1, "refiner_checkpoint": "editor", "refiner_switch_at": 1})[2]
    same(opened(told["images"][0]), alone(prompts="sea", seed=1)[0])
    assert "extra_generation_params" not in json.loads(told["info"])


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"refiner_checkpoint": "editor"}, "from which share of the steps"),
        ({"refiner_checkpoint": "nobody", "refiner_switch_at": 0.5}, "no model 'nobody'"),
        ({"refiner_checkpoint": "small", "refiner_switch_at": 0.5}, "small is the model itself"),
        ({"refiner_checkpoint": "editor", "refiner_switch_at": 1.5}, "refiner_switch_at"),
        ({"refiner_checkpoint": "editor", "refiner_switch_at": 0.3, "height": 100}, "small: height 100"),
        ({"refiner_checkpoint": "editor", "refiner_switch_at": 0.3, "sampler_name": "ode"}, "only compiled samplers"),
    ],
)
def test_what_no_refiner_can_do_is_refused_before_anything_is_drawn(server, asked, text):
    calls = []
    status, _, told = server(calls=calls).post(f"{AT}/txt2img", {"prompt": "sea", **asked})
    assert 400 <= status < 500
    assert text in told["detail"]
    assert calls == []
