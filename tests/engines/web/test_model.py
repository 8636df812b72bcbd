import json

import pytest

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.images import provenance
from engines.inputs import Input
from engines.manifest import Defaults, OpenLength, Tile, Tokenizer
from engines.signature import Port
from engines.web import model
from tests.engines import small
from tests.engines.web import sites


def described(folder, **changes):
    return model.described(sites.clip(folder / "bundle", {}, **changes))


def with_part(name, **changes):
    parts = dict(small.draft().parts)
    return {"parts": {**parts, name: parts[name].model_copy(update=changes)}}


def test_what_a_page_must_know(tmp_path):
    bundle = sites.clip(tmp_path / "bundle", {}, encoder=True)
    found = json.loads(json.dumps(model.described(bundle)))
    assert found["facts"] == provenance.facts(bundle.manifest, "")
    assert (found["order"], found["denoiser"], found["decoder"]) == (["text_encoder"], "unet", "vae_decoder")
    assert found["output"] == "model_output"
    assert found["shallow"] is None
    assert set(found["parts"]) == {"text_encoder", "unet", "vae_decoder"}  # no encoder: a page starts from noise
    assert found["parts"]["unet"] == {
        "inputs": ["latent", "timestep", "guidance_scale", "prompt_embeds"],
        "resting": {},
        "files": ["onnx/20/unet.onnx"],
    }
    assert found["sizes"] == {"factors": [8, 8], "channels": 4, "ranges": [[16, 64, 16], [16, 64, 16]]}
    assert found["branches"] == 2
    assert found["scales"] == [{"name": "guidance_scale", "default": 2.0, "off": 1.0}]
    assert [entry["file"] for entry in found["samplers"]] == ["samplers/2.json", "samplers/4.json"]
    assert found["pipelines"] == {}


def test_what_rests_at_zero_is_as_short_as_it_may_be(tmp_path):
    found = described(tmp_path, **sites.resting())
    assert found["parts"]["unet"]["inputs"][-1] == "detail"
    assert found["parts"]["unet"]["resting"] == {"detail": [1, 3]}


def test_of_a_fused_bundle_the_whole_pipelines_alone(tmp_path):
    found = described(tmp_path, **small.fused(draws=3))
    assert found["pipelines"] == {"2": {"name": "pipeline_2", "draws": 3}}
    assert set(found["parts"]) == {"pipeline_2"}


def test_of_a_decoder_in_tiles_what_fits_one(tmp_path):
    found = described(tmp_path, **with_part("vae_decoder", tile=Tile(size=5, overlap=2)))
    assert found["sizes"]["ranges"] == [[16, 32, 16], [16, 32, 16]]
    with pytest.raises(UnsupportedError, match=r"decodes 32x64 pixels in tiles.*without `tile` of vae_decoder"):
        described(
            tmp_path / "large",
            **with_part("vae_decoder", tile=Tile(size=5, overlap=2)),
            defaults=Defaults(height=64, width=32, steps=4),
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"defaults": Defaults(height=32, width=32, steps=2, generator="torch-cpu")}, "its seeds are those of torch-cpu"),
        (with_part("unet", precision="bf16"), "unet computes in bf16, for which browsers have no kernels"),
    ],
)
def test_what_no_page_does_is_refused_by_name(tmp_path, changes, says):
    with pytest.raises(UnsupportedError, match=f"no page can draw with .*bundle: {says}.*t2iexport generate"):
        described(tmp_path, **changes)


def test_several_refusals_are_told_at_once(tmp_path):
    parts = dict(small.draft().parts)
    for name, port in (
        ("unet", Port(name="detail", shape=("batch",))),
        ("text_encoder", Port(name="weights", shape=("batch", 2, 6))),
    ):
        signature = parts[name].signature
        signature = signature.model_copy(update={"inputs": (*signature.inputs, port)})
        parts[name] = parts[name].model_copy(update={"signature": signature})
    weighted = Tokenizer(file="tokenizers/tokenizer.json", length=6, feeds="tokenizer_ids", weights="weights", syntax="compel")
    inputs = {"detail": Input(kind="number", shape=("batch",), default=1.0, about="how much")}
    with pytest.raises(UnsupportedError, match=r"it takes the input detail, .*; tokenizer reads weights as compel writes them"):
        described(tmp_path, parts=parts, inputs=inputs, tokenizers={"tokenizer": weighted})


def test_texts_as_long_as_they_are_are_refused(tmp_path):
    bundle = sites.clip(tmp_path / "bundle", {})
    read = bundle.manifest.tokenizers["tokenizer"].model_copy(update={"open": OpenLength(dim="words")})
    opened = Bundle(bundle.folder, bundle.manifest.model_copy(update={"tokenizers": {"tokenizer": read}}))
    with pytest.raises(UnsupportedError, match="tokenizer reads texts as long as they are, and a page those of one length"):
        model.described(opened)


def test_what_is_too_large_for_a_browser_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "_ROOM", 10)
    with pytest.raises(UnsupportedError, match=r"its networks are 0.0 GB, and a browser has room for 0.0; fp16 or int8"):
        described(tmp_path)


def test_a_network_that_takes_more_than_one_picture(tmp_path):
    unet = small.draft().parts["unet"]
    batch = {**unet.signature.dims, "batch": small.BATCH.model_copy(update={"min": 2, "typical": 2})}
    signature = unet.signature.model_copy(update={"dims": batch})
    with pytest.raises(UnsupportedError, match=r"unet takes 2 pictures at once, and a page draws one.*batch: \[1, 1, 1\]"):
        described(tmp_path, **with_part("unet", signature=signature))


def test_another_tokenizer_than_clip_s(tmp_path):
    with pytest.raises(UnsupportedError, match="tokenizer is no tokenizer of CLIP"):
        model.described(Bundle.open(small.make(tmp_path / "small").folder))
