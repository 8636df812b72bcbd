"""OpenAI's images API, spoken by the official client and by hand."""

import base64

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from engines.serve.openai_api import white_is_anew
from tests.engines.serve.live import file_of, opened

AT = "/v1/images/generations"


@pytest.fixture
def client():
    openai = pytest.importorskip("openai", reason="the official client is not installed")

    def make(live, key="none"):
        return openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)

    return make


def same(image, other):
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(other))


def test_the_official_client_draws_what_the_pipeline_draws(server, alone, client):
    api = client(server())
    extra = {"seed": 5, "num_inference_steps": 2, "guidance_scale": 3.5, "negative_prompt": "sea"}
    asked = {"model": "small", "prompt": "a red square", "n": 2, "size": "32x64", "response_format": "b64_json"}
    answer = api.images.generate(**asked, extra_body=extra)
    told = {"prompts": "a red square", "seed": 5, "steps": 2, "guidance_scale": 3.5, "negative_prompt": "sea"}
    wanted = alone(**told, images_per_prompt=2, height=64, width=32)
    assert len(answer.data) == 2
    for image, other in zip(answer.data, wanted, strict=True):
        same(opened(image.b64_json), other)
    assert answer.size == "32x64"
    assert [image.seed for image in answer.data] == [5, 6]
    assert opened(answer.data[0].b64_json).text["prompt"] == "a red square"


def test_the_official_client_edits(server, alone, client):
    api, rng = client(server()), np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
    alpha = np.full((32, 32, 4), 255, np.uint8)
    alpha[:, 16:, 3] = 0  # to OpenAI this half is made anew
    answer = api.images.edit(
        model="editor",
        image=("a.png", file_of(image)),
        mask=("b.png", file_of(Image.fromarray(alpha))),
        prompt="a blue circle",
        extra_body={"seed": 3, "strength": 0.5},
    )
    mask = Image.fromarray(255 - alpha[..., 3])
    (wanted,) = alone("editor", prompts="a blue circle", image=image, mask=mask, seed=3, strength=0.5)
    made = opened(answer.data[0].b64_json)
    same(made, wanted)
    same(made.crop((0, 0, 16, 32)), image.crop((0, 0, 16, 32)))


def test_the_official_client_streams_previews_and_the_picture(server, alone, client):
    api = client(server())
    stream = api.images.edit(
        model="editor",
        image=("a.png", file_of(Image.new("RGB", (64, 32)))),
        prompt="sea",
        stream=True,
        partial_images=2,
        extra_body={"num_inference_steps": 2, "strength": 1, "seed": 1},
    )
    events = list(stream)
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    (wanted,) = alone("editor", prompts="sea", image=Image.new("RGB", (64, 32)), strength=1.0, seed=1, steps=2)
    same(opened(events[-1].b64_json), wanted)
    assert opened(events[0].b64_json).size == (64, 32)
    assert (events[0].partial_image_index, events[0].step, events[0].steps) == (0, 1, 2)


def test_the_official_client_lists_models_and_reads_errors(server, client):
    import openai

    live = server(keys=("secret",))
    api = client(live, "secret")
    assert [model.id for model in api.models.list()] == ["small", "editor"]
    assert api.models.retrieve("editor").t2iexport["image"] is True
    with pytest.raises(openai.NotFoundError, match="no model 'smal'; did you mean 'small'"):
        api.images.generate(model="smal", prompt="a")
    with pytest.raises(openai.AuthenticationError, match="a key is needed"):
        client(live, "other").models.list()
    with pytest.raises(openai.BadRequestError, match="no sampler of 3 steps") as caught:
        api.images.generate(prompt="a", extra_body={"num_inference_steps": 3})
    assert caught.value.code == "invalid_value"


def test_a_url_is_a_picture_for_whoever_knows_it(server):
    live = server(keys=("secret",))
    _, _, told = live.post(AT, {"prompt": "sea", "seed": 1, "response_format": "url"}, authorization="Bearer secret")
    url = told["data"][0]["url"]
    status, headers, data = live.get(url.removeprefix(live.url))
    assert (status, headers["content-type"]) == (200, "image/png")
    _, _, again = live.post(AT, {"prompt": "sea", "seed": 1}, authorization="Bearer secret")
    assert data == base64.b64decode(again["data"][0]["b64_json"])
    assert live.get("/v1/images/files/..%2f..%2fetc%2fpasswd")[0] in {401, 404}
    assert live.get("/v1/images/files/passwd")[0] == 404


@pytest.mark.parametrize(("form", "name"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_files_come_in_three_formats(server, form, name):
    status, _, told = server().post(AT, {"prompt": "sea", "output_format": form, "output_compression": 50})
    assert status == 200
    assert opened(told["data"][0]["b64_json"]).format == name
    assert told["output_format"] == form


def test_a_seed_that_is_left_out_is_another_each_time(server):
    live = server()
    seeds = {live.post(AT, {"prompt": "sea"})[2]["data"][0]["seed"] for _ in range(3)}
    assert len(seeds) == 3


WRONG = {
    "model": ({"model": "nobody"}, 404, "model_not_found"),
    "size": ({"size": "large"}, 400, "invalid_value"),
    "too large": ({"size": "640x640"}, 400, "invalid_value"),
    "no multiple": ({"size": "33x32"}, 400, "invalid_value"),
    "pixels": ({"size": "64x64"}, 400, "invalid_value"),
    "steps": ({"num_inference_steps": 7}, 400, "invalid_value"),
    "many steps": ({"num_inference_steps": 4}, 400, "invalid_value"),
    "n": ({"n": 9}, 400, "invalid_value"),
    "no n": ({"n": 0}, 400, "invalid_value"),
    "prompt": ({"prompt": "x" * 101}, 400, "invalid_value"),
    "negative": ({"negative_prompt": "x" * 101}, 400, "invalid_value"),
    "sampler": ({"sampler": "euler"}, 400, "invalid_value"),
    "both": ({"sampler": "ode", "num_inference_steps": 2}, 400, "invalid_value"),
    "seed": ({"seed": -2}, 400, "invalid_value"),
    "unknown": ({"promt": "x"}, 400, "unknown_parameter"),
    "transparent": ({"background": "transparent"}, 400, "invalid_value"),
    "strength": ({"strength": 0.5}, 400, "invalid_value"),
    "input": ({"inputs": {"depth": 1}}, 400, "invalid_value"),
    "scale": ({"guidance_scale": "much"}, 400, "invalid_value"),
    "gif": ({"output_format": "gif"}, 400, "invalid_value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_had_is_refused_in_openais_shape(server, name):
    asked, status, code = WRONG[name]
    live = server(max_prompt=100, max_pixels=64 * 32, max_steps=3)
    told = live.post(AT, {"prompt": "sea", **asked})
    assert told[0] == status
    error = told[2]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"].endswith((".", "?")) or "; there are: " in error["message"] or "\n" in error["message"]
    assert live.get("/healthz")[0] == 200


BODIES = {
    "no JSON": (b"{", "application/json", 400, "invalid_json"),
    "a list": (b"[]", "application/json", 400, "invalid_value"),
    "deep": (b"[" * 100_000, "application/json", 400, "invalid_json"),
    "latin": (b'{"prompt": "\xff"}', "application/json", 400, "invalid_json"),
    "half a character": (b'{"prompt": "\\ud800"}', "application/json", 400, "invalid_json"),
    "infinite": (b'{"guidance_scale": 1e999}', "application/json", 400, "invalid_value"),
    "text": (b"hello", "text/plain", 415, "content_type"),
    "untyped": (b"{}", "", 415, "content_type"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none_is_refused(server, name):
    body, kind, status, code = BODIES[name]
    told = server().post(AT, body, content_type=kind)
    assert (told[0], told[2]["error"]["code"]) == (status, code)


def test_an_edit_needs_a_picture_that_is_one(server):
    live, picture = server(max_input_pixels=64 * 64), file_of(Image.new("RGB", (32, 32)))
    at, asked = "/v1/images/edits", {"model": "editor", "prompt": "sea"}
    bomb = file_of(Image.new("L", (3000, 3000)))
    cases = [
        (live.form(at, asked, {}), 400, "image is missing"),
        (live.form(at, asked, {"image": b"no picture"}), 400, "image cannot be read as a picture"),
        (live.form(at, asked, {"image": picture[:60]}), 400, "image cannot be read"),
        (live.form(at, asked, {"image": bomb}), 413, "3000x3000 pixels, and 4096 are allowed"),
        (live.form(at, asked, {"mask": picture}), 400, "image is missing"),
        (live.form(at, asked, {"image": picture, "mask": file_of(Image.new("RGB", (16, 32)))}), 400, "Make them of one size"),
        (live.form(at, {**asked, "model": "small"}, {"image": picture}), 400, "no VAE encoder"),
        (live.form(at, {**asked, "image": "/etc/passwd"}, {}), 400, "image must be a file"),
        (live.form(at, {**asked, "strength": "2"}, {"image": picture}), 400, "strength 2 is out of range"),
        (live.form(at, {**asked, "inputs": "{"}, {"image": picture}), 400, "inputs is no JSON"),
        (live.post(at, asked), 415, "send multipart/form-data"),
    ]
    for (status, _, told), wanted, text in cases:
        assert status == wanted, told
        assert text in told["error"]["message"]


def test_transparent_is_anew_to_openai_and_white_to_us():
    black, white = Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 255)
    clear = Image.new("RGBA", (2, 2), (255, 255, 255, 0))
    solid = Image.new("RGBA", (2, 2), (255, 255, 255, 255))
    assert [np.asarray(white_is_anew(mask).convert("L")).max() for mask in (black, white, clear, solid)] == [0, 255, 255, 255]
    half = Image.new("RGBA", (2, 2), (255, 255, 255, 255))
    half.putpixel((0, 0), (0, 0, 0, 0))
    assert np.asarray(white_is_anew(half)).tolist() == [[255, 0], [0, 0]]
