"""LoRAs by the names that a server was started with: in both dialects, in a batch, and on the page."""

import contextlib
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("safetensors", reason="it writes the tests' LoRAs")

from engines.bundle import Bundle
from engines.pipeline import Pipeline
from engines.serve.a1111_api import without_loras
from engines.serve.command import serve
from engines.serve.options import ServeOptions
from engines.serve.refusals import Refusal
from tests.engines.lora import networks
from tests.engines.serve.live import file_of, live, opened

AT = "/v1/images/generations"


@contextlib.contextmanager
def opener(path, wrap):
    bundle = Bundle.open(path)
    yield Pipeline(bundle, {name: wrap(name, "toy", own) for name, own in networks.networks(bundle).items()}, "toy 1")


@pytest.fixture
def files(tmp_path):
    return {
        name: networks.saved(tmp_path / f"{name}.safetensors", networks.tensors(seed=seed))
        for seed, name in enumerate(("one", "two"))
    }


@pytest.fixture
def running(tmp_path, files):
    networks.bundle(tmp_path / "it")
    with live({"it": tmp_path / "it"}, ServeOptions(loras=files), opener) as found:
        yield found


@pytest.fixture
def wanted(tmp_path, files):
    """What the pipeline draws."""

    def draw(scales):
        with opener(tmp_path / "it", lambda _part, _backend, network: network) as pipeline:
            return np.asarray(pipeline.generate("sea", seed=1, loras=[(files[name], scale) for name, scale in scales.items()])[0])

    return draw


def pixels(text):
    return np.asarray(opened(text).convert("RGB"))


@pytest.mark.parametrize("scales", [{"one": 0.8}, {"two": 1, "one": -0.5}, {}])
def test_both_dialects_draw_what_the_pipeline_draws(running, wanted, scales):
    told = running.post(AT, {"prompt": "sea", "seed": 1, "loras": scales})[2]
    np.testing.assert_array_equal(pixels(told["data"][0]["b64_json"]), wanted(scales))
    words = " ".join(f"<lora:{name}:{scale}>" for name, scale in scales.items())
    told = running.post("/sdapi/v1/txt2img", {"prompt": f"sea {words}", "seed": 1})[2]
    np.testing.assert_array_equal(pixels(told["images"][0]), wanted(scales))


def test_names_are_listed_and_others_refused_and_no_path_is_read(running, files):
    assert running.get("/v1/models/it")[2]["t2iexport"]["loras"] == ["one", "two"]
    assert [each["name"] for each in running.get("/sdapi/v1/loras")[2]] == ["one", "two"]
    for name in ("thr", str(files["one"]), "../one"):
        status, _, told = running.post(AT, {"prompt": "sea", "loras": {name: 1}})
        assert (status, told["error"]["param"]) == (400, "loras")
    assert running.post("/sdapi/v1/txt2img", {"prompt": "sea <lora:none:1>"})[0] == 400
    assert str(files["one"].parent) not in json.dumps(running.post(AT, {"prompt": "sea", "loras": {"one": 1}})[2])


@pytest.mark.parametrize("loras", ["[]", '{"one": "x"}', "{", '{"one": true}'])
def test_what_is_no_scale_in_a_form_is_refused(running, loras):
    status, _, told = running.form(
        "/v1/images/edits", {"prompt": "sea", "loras": loras}, {"image": file_of(Image.new("RGB", (32, 32)))}
    )
    assert (status, told["error"]["param"]) == (400, "loras")


def test_a_server_without_loras_says_so(server):
    told = server().post(AT, {"prompt": "sea", "loras": {"one": 1}})[2]
    assert told["error"]["message"] == "no LoRA 'one': this server was started without any."


def test_prompts_keep_what_is_no_lora():
    assert without_loras("a <b> sea") == ("a <b> sea", {})
    assert without_loras("sea <lora:x> <lora:y:0.5><lora:y:0.25>") == ("sea", {"x": 1.0, "y": 0.75})
    with pytest.raises(Refusal, match="'much' is no number"):
        without_loras("<lora:x:much>")


@pytest.mark.parametrize(("words", "text"), [(["x"], "write NAME=FILE"), (["x=/none"], "there is no file /none")])
def test_what_is_wrong_at_the_start_is_told(tmp_path, words, text):
    done = CliRunner().invoke(serve, [str(tmp_path), *(word for each in words for word in ("--lora", each))])
    assert text in str(done.exception)
