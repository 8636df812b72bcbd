"""A1111's API, as programs that speak it use it; requests of Open WebUI are replayed as it sends them."""

import base64
import json
import threading

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from tests.engines.serve.live import opened, text_of

AT = "/sdapi/v1"


def same(image, other):
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(other))


def test_pictures_of_a_prompt_are_the_pipelines(server, alone):
    body = {"prompt": "a red square", "negative_prompt": "sea", "seed": 4, "steps": 2, "cfg_scale": 3, "width": 32, "height": 64}
    body |= {"batch_size": 2, "sampler_name": "Toy", "tiling": False, "override_settings": {"sd_model_checkpoint": "small"}}
    status, _, told = server().post(f"{AT}/txt2img", body)
    assert status == 200
    same_size = {"images_per_prompt": 2, "height": 64, "width": 32}
    wanted = alone(prompts="a red square", negative_prompt="sea", seed=4, steps=2, guidance_scale=3.0, **same_size)
    for image, other in zip(told["images"], wanted, strict=True):
        same(opened(image), other)
    info = json.loads(told["info"])
    assert (info["all_seeds"], info["steps"], info["cfg_scale"], info["sd_model_name"]) == ([4, 5], 2, 3.0, "small")
    assert "prompt: a red square" in info["infotexts"][0]


def test_pictures_from_a_picture_are_the_pipelines(server, alone):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8))
    keep = Image.new("L", (32, 32), 255)
    keep.paste(0, (0, 0, 16, 32))
    body = {"init_images": [f"data:image/png;base64,{text_of(image)}"], "prompt": "sea", "seed": 2, "denoising_strength": 0.5}
    live = server()
    live.post(f"{AT}/options", {"sd_model_checkpoint": "editor"})
    for mask, invert, wanted in ((None, 0, None), (keep, 0, keep), (keep, 1, Image.fromarray(255 - np.asarray(keep)))):
        sent = {**body, "mask": mask and text_of(mask), "inpainting_mask_invert": invert}
        status, _, told = live.post(f"{AT}/img2img", sent)
        assert status == 200, told
        (other,) = alone("editor", prompts="sea", image=image, mask=wanted, seed=2, strength=0.5)
        same(opened(told["images"][0]), other)
        assert "init_images" not in told["parameters"]


def test_lists_are_as_clients_read_them(server):
    live = server()
    titles = [model["title"] for model in live.get(f"{AT}/sd-models")[2]]
    assert [title.partition(" [")[0] for title in titles] == ["small", "editor"]
    names = [sampler["name"] for sampler in live.get(f"{AT}/samplers")[2]]
    assert names == ["Toy", "adaptive", "ode", "predictor_corrector"]
    assert live.get(f"{AT}/loras")[2] == []
    idle = live.get(f"{AT}/progress")[2]
    assert (idle["progress"], idle["current_image"], idle["state"]["job_count"]) == (0, None, 0)


def test_open_webui_chooses_a_model_and_draws(server, alone):
    """As backend/open_webui/routers/images.py does: options read, changed and sent back whole, then txt2img."""
    live = server(keys=("secret",))
    key = {"authorization": "Basic " + base64.b64encode(b"user:secret").decode()}
    options = live.get(f"{AT}/options", **key)[2]
    assert options["sd_model_checkpoint"].startswith("small")
    assert [model["title"] for model in live.get(f"{AT}/sd-models", **key)[2]][1].startswith("editor")
    options["sd_model_checkpoint"] = "editor"
    assert live.post(f"{AT}/options", options, **key)[0] == 200
    assert live.get(f"{AT}/options", **key)[2]["sd_model_checkpoint"].startswith("editor")
    body = {"prompt": "a blue circle", "batch_size": 1, "width": 32, "height": 32, "steps": 2, "seed": 9}
    told = live.post(f"{AT}/txt2img", body, **key)[2]
    (wanted,) = alone("editor", prompts="a blue circle", seed=9, steps=2)
    same(opened(told["images"][0]), wanted)
    assert live.get(f"{AT}/options")[0] == 401


def test_open_webui_draws_through_openais_dialect(server, alone):
    live = server()
    body = {"model": "small", "prompt": "sea", "n": 1, "size": "32x32", "response_format": "b64_json"}
    told = live.post("/v1/images/generations", body, authorization="Bearer any")[2]
    (wanted,) = alone(prompts="sea", seed=told["data"][0]["seed"])
    same(opened(told["data"][0]["b64_json"]), wanted)


def test_open_webui_edits_through_openais_dialect(server, alone):
    """It sends a form whose picture may be called image[], with model, prompt, n, size and response_format as texts."""
    from tests.engines.serve.live import file_of

    image = Image.new("RGB", (32, 32), "red")
    fields = {"model": "editor", "prompt": "sea", "n": "1", "size": "32x32", "response_format": "b64_json"}
    told = server().form("/v1/images/edits", fields, {"image[]": file_of(image)})[2]
    (wanted,) = alone("editor", prompts="sea", image=image, seed=told["data"][0]["seed"])
    same(opened(told["data"][0]["b64_json"]), wanted)


def test_another_sampler_is_drawn_with_or_refused_by_name(server, alone):
    live = server()
    told = live.post(f"{AT}/txt2img", {"prompt": "sea", "seed": 1, "sampler_name": "ode:relative=0.1,absolute=0.1"})[2]
    (wanted,) = alone(prompts="sea", seed=1, sampler="ode:relative=0.1,absolute=0.1")
    same(opened(told["images"][0]), wanted)
    status, _, told = live.post(f"{AT}/txt2img", {"prompt": "sea", "sampler_name": "Euler a"})
    assert status == 400
    assert told["detail"].endswith("compiled into it. There are: Toy, adaptive, ode, predictor_corrector.")


WRONG = {
    "model": ("txt2img", {"override_settings": {"sd_model_checkpoint": "nobody"}}, 404, "no model 'nobody'"),
    "settings": ("txt2img", {"override_settings": {"eta_noise": 2}}, 400, "override_settings.eta_noise is not known"),
    "clip": ("txt2img", {"override_settings": {"CLIP_stop_at_last_layers": 2}}, 400, "not supported"),
    "format": ("txt2img", {"override_settings": {"samples_format": "tiff"}}, 400, "none of png"),
    "hires": ("txt2img", {"enable_hr": True}, 400, "enable_hr is not supported"),
    "script": ("txt2img", {"script_name": "x/y"}, 400, "script_name is not supported"),
    "extras": ("txt2img", {"alwayson_scripts": {"controlnet": {}}}, 400, "alwayson_scripts is not supported"),
    "steps": ("txt2img", {"steps": 20}, 400, "no sampler of 20 steps"),
    "size": ("txt2img", {"width": 4000}, 400, "width 4000"),
    "many": ("txt2img", {"batch_size": 4, "n_iter": 4}, 400, "16 pictures at once"),
    "no picture": ("img2img", {}, 400, "init_images holds 0 pictures"),
    "two pictures": ("img2img", {"init_images": ["", ""]}, 400, "init_images holds 2 pictures"),
    "no base64": ("img2img", {"init_images": ["/etc/passwd"]}, 400, "init_images is no base64"),
    "no picture in it": ("img2img", {"init_images": ["aGVsbG8="]}, 400, "init_images cannot be read as a picture"),
    "a URL": ("img2img", {"init_images": ["http://127.0.0.1/x.png"]}, 400, "this server fetches nothing"),
    "a setting": ("options", {"sd_vae": "other.pt"}, 400, "sd_vae cannot be set"),
    "no such model": ("options", {"sd_model_checkpoint": "nobody"}, 404, "no model 'nobody'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_had_is_refused_in_a1111s_shape(server, name):
    path, body, status, text = WRONG[name]
    found, _, told = server().post(f"{AT}/{path}", body)
    assert (found, set(told)) == (status, {"error", "detail", "body", "errors"})
    assert text in told["detail"]
    assert told["errors"] == told["detail"]


def test_progress_and_interrupt_are_of_the_callers_own_pictures(server):
    go, reached = threading.Event(), threading.Event()

    def slow(part):
        if part == "unet":
            reached.set()
            go.wait(20)

    live = server(slow=slow, keys=("mine", "other"))
    mine, other = ({"authorization": f"Bearer {key}"} for key in ("mine", "other"))
    found = []
    thread = threading.Thread(target=lambda: found.append(live.post(f"{AT}/txt2img", {"prompt": "sea", "steps": 2}, **mine)))
    thread.start()
    assert reached.wait(10)
    state = live.get(f"{AT}/progress", **mine)[2]["state"]
    assert state["job_count"] == 1
    assert live.get(f"{AT}/progress", **other)[2]["state"]["job_count"] == 0
    assert live.post(f"{AT}/interrupt", {}, **other)[0] == 200
    assert len(live.application.dispatcher.drawing) == 1
    live.post(f"{AT}/interrupt", {}, **mine)
    go.set()
    thread.join(20)
    status, _, told = found[0]
    assert (status, told["detail"]) == (409, "the picture was cancelled.")


def test_progress_shows_the_picture_as_the_last_step_sees_it(server):
    reached, go, calls = threading.Event(), threading.Event(), []

    def slow(part):
        if part == "unet":
            calls.append(part)
            if len(calls) == 2:
                reached.set()
                go.wait(20)

    live = server(slow=slow)
    live.post(f"{AT}/options", {"sd_model_checkpoint": "editor"})
    body = {"prompt": "sea", "steps": 2, "init_images": [text_of(Image.new("RGB", (64, 32)))], "denoising_strength": 1}
    thread = threading.Thread(target=lambda: live.post(f"{AT}/img2img", body))
    thread.start()
    assert reached.wait(10)
    told = live.get(f"{AT}/progress")[2]
    assert (told["progress"], told["state"]["sampling_step"], told["state"]["sampling_steps"]) == (0.5, 1, 2)
    assert opened(told["current_image"]).size == (64, 32)
    assert live.get(f"{AT}/progress?skip_current_image=true")[2]["current_image"] is None
    go.set()
    thread.join(20)
