"""The manifest's schema: what cannot be played is refused with a sentence, and what a picture depends on has one digest."""

import pytest
from pydantic import ValidationError

from engines.bundle import Draft, SamplerEntry
from engines.manifest import EngineFiles, File, Manifest, Onnx, OpenLength, PartEntry, Quantized, Tile, Tokenizer, Verdict
from engines.signature import Port, Signature
from tests.engines import small


def changed(**changes):
    return {**small.draft().model_dump(), **changes}


def parts(**changes):
    return {**dict(small.draft()), "parts": {**small.draft().parts, **changes}}


def part(name, **changes):
    return small.draft().parts[name].model_copy(update=changes)


def signature(inputs, outputs):
    made = [tuple(Port(name=name, shape=shape) for name, shape in side.items()) for side in (inputs, outputs)]
    return Signature(inputs=made[0], outputs=made[1], dims={"batch": small.BATCH} if "batch" in str(made) else {})


FLAT = signature({"latent": ("batch", 4)}, {"image": ("batch", 4)})


ODD = signature({"tokenizer_ids": ("batch", 4)}, {"prompt_embeds": (4, "batch")})


EMPTY = signature({"tokenizer_ids": ("batch", 4)}, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(parts={}), "one denoiser, not 0"),
        (parts(other=part("vae_decoder")), "one decoder, not 2"),
        (changed(samplers=(SamplerEntry(steps=2, file="a"), SamplerEntry(steps=2, file="b"))), "two samplers"),
        (changed(samplers=(SamplerEntry(steps=3, file="a"),)), "default number of steps"),
        (changed(guidance={"mode": "none", "scales": [{"name": "guidance_scale", "default": 1.0}]}), "must have a scale unless"),
        (changed(guidance={"mode": "embedded"}), "must have a scale unless"),
        (changed(guidance={"mode": "none"}), "nothing feeds unet's .'guidance_scale'"),
        (changed(tokenizers={}), "nothing feeds text_encoder's"),
        (changed(noise_order=(2, 2)), r"\[2, 2\] must name each number once"),
        (changed(noise_order=(2, 64)), "less than or equal to 63"),
        (changed(start_order={"image": (1, 2)}), "there is no encoder"),
        (changed(start_order={"mask": (2, 1)}), r"\[2, 1\] must be in ascending order"),
        (parts(other=part("text_encoder")), "two sources feed one name"),
        (parts(unet=part("unet", signature=part("vae_decoder").signature)), "one output of its shape"),
        (parts(vae_decoder=part("vae_decoder", signature=FLAT)), "a latent must have 4 axes"),
        (parts(text_encoder=part("text_encoder", signature=ODD)), "the first axis of every port of text_encoder"),
        (parts(text_encoder=part("text_encoder", signature=EMPTY)), "must take and return something"),
        (parts(vae_decoder=part("vae_decoder", signature=part("unet").signature)), "nothing feeds vae_decoder's"),
    ],
)
def test_a_draft_that_cannot_be_played_is_refused(content, message):
    with pytest.raises(ValidationError, match=message):
        Draft(**content)


def test_text_parts_that_wait_for_each_other_are_refused():
    def text(takes, gives):
        return part("text_encoder", signature=signature({takes: ("batch",)}, {gives: ("batch",)}))

    with pytest.raises(ValidationError, match=r"wait for each other.*'one', 'two'"):
        Draft(**parts(one=text("a", "b"), two=text("b", "a")))
    chain = Draft(**parts(a=text("b", "c"), z=text("prompt_embeds", "b")))
    assert chain.encoding_order() == ("text_encoder", "z", "a")


def test_files_and_paths_stay_inside():
    for path in ("onnx/20/unet.onnx", "a", "@x/-y_1.json"):
        assert Onnx(files=(path,), nodes_exported=1, nodes=1).files == (path,)
    for path in ("/etc/passwd", "../a", "a/../b", "a//b", ".hidden", "a/.b", "a\\b", "", "a/", "a b", "x" * 241):
        with pytest.raises(ValidationError, match="files"):
            Onnx(files=(path,), nodes_exported=1, nodes=1)
    for size, digest in ((-1, "0" * 64), (1, "0" * 63), (1, "A" * 64)):
        with pytest.raises(ValidationError, match=r"size|sha256"):
            File(size=size, sha256=digest)


def test_a_tile_shares_at_most_half():
    assert Tile(size=8, overlap=4).overlap == 4
    with pytest.raises(ValidationError, match="overlap 5 is more than half of size 8; a quarter is usual"):
        Tile(size=8, overlap=5)
    with pytest.raises(ValidationError, match="a denoiser has tiles, and only a decoder's work is divided"):
        PartEntry.model_validate({**dict(part("unet")), "tile": Tile(size=8, overlap=2)})


def test_guidance_says_how_many_prompts_a_picture_has():
    assert [small.draft(mode).guidance.branches for mode in ("none", "embedded", "classifier_free")] == [1, 1, 2]


def test_every_kind_of_file_is_named():
    quantized = Quantized(format="int8", layers=3, quantized=2, calibration="calibration/unet.json")
    built = EngineFiles(options={}, opset=20, files=("engines/openvino/unet.xml",), version="1")
    entries = {**small.draft().parts, "unet": part("unet", quantized=quantized, engines={"openvino": built})}
    samplers = (SamplerEntry(steps=2, file="samplers/2.json", image="samplers/2_image.json"),)
    parts = {**entries, **{name: entry for name, entry in small.draft(encoder=True).parts.items() if entry.role == "encoder"}}
    draft = Draft(**{**dict(small.draft()), "parts": parts, "samplers": samplers, "recordings": ("recordings/0.npz",)})
    assert draft.named() == {
        *(f"onnx/20/{name}.onnx" for name in ("text_encoder", "unet", "vae_decoder", "vae_encoder")),
        "engines/openvino/unet.xml", "samplers/2.json", "samplers/2_image.json", "samplers/process.json",
        "tokenizers/tokenizer.json", "recordings/0.npz", "calibration/unet.json",
    }  # fmt: skip


def test_parts_are_found_by_role_and_whole_pipelines_by_steps():
    draft = small.draft()
    assert list(draft.with_role("denoiser")) == ["unet"]
    assert draft.with_role("encoder") == {}
    assert draft.running() == draft.parts
    assert draft.fused(2) is None
    fused = small.draft(**small.fused())
    assert list(fused.running()) == ["pipeline_2"]
    assert (fused.fused(2), fused.fused(3)) == ("pipeline_2", None)


def test_one_encoder_at_most_and_images_need_one():
    encoder = small.draft(encoder=True).parts["vae_encoder"]
    with pytest.raises(ValidationError, match="at most one encoder"):
        Draft(**parts(vae_encoder=encoder, other=encoder))
    with pytest.raises(ValidationError, match="starts from an image, and there is no encoder"):
        Draft(**changed(samplers=(SamplerEntry(steps=2, file="a", image="b"),)))
    with pytest.raises(ValidationError, match="an encoder must take an image of 4 axes, and return the denoiser's latent"):
        Draft(**parts(vae_encoder=encoder.model_copy(update={
            "signature": signature({"image": ("batch", 8, 8, 3), "noise": ("batch", 4)}, {"latent": ("batch", 4)}),
        })))  # fmt: skip


def listed(mode="classifier_free", **changes):
    """The manifest of a draft, with made-up files."""
    draft = small.draft(mode, **changes)
    files = {name: {"size": 1, "sha256": f"{number:064x}"} for number, name in enumerate(sorted(draft.named()))}
    return Manifest(**dict(draft), digest="0" * 64, files=files)


def test_receipts_do_not_change_what_a_picture_depends_on():
    model = listed().model
    verdict = Verdict(part="unet", stage="image", case="", values={"psnr": 90.0}, passed=True)
    assert listed(verdicts=(verdict,), notes=("a note",), name="other").model == model
    changed_engine = part("unet", engines={"openvino": EngineFiles(options={}, opset=20, files=(), version="2")})
    assert listed(parts={**small.draft().parts, "unet": changed_engine}).model == model
    tiled = part("vae_decoder", tile=Tile(size=4, overlap=2))
    others = [listed("embedded"), listed(parts={**small.draft().parts, "vae_decoder": tiled})]
    swapped = listed()
    files = {**swapped.files, "onnx/20/unet.onnx": File(size=1, sha256="f" * 64)}
    others += [swapped.model_copy(update={"files": files}), listed(noise_order=(1, 0)), listed(partial_step="taken")]
    assert len({model, *(other.model for other in others)}) == 6


def test_what_is_named_is_listed_and_a_newer_format_is_refused():
    whole = listed()
    less = {name: file for name, file in whole.files.items() if name != "samplers/2.json"}
    with pytest.raises(ValidationError, match=r"not in files: \['samplers/2.json'\]"):
        Manifest(**{**dict(whole), "files": less})
    with pytest.raises(ValidationError, match="format"):
        Manifest(**{**dict(whole), "format": 6})


def test_an_open_length_reads_one_branch_or_all_and_counts_for_what_a_picture_depends_on():
    usual = {"file": "a.json", "length": 32, "feeds": "ids"}
    open_ones = [Tokenizer(**usual, open=OpenLength(dim="words", branch=branch)) for branch in ("negative", "prompt", None)]
    assert [each.rows(2) for each in open_ones] == [(0,), (1,), (0, 1)]
    assert [Tokenizer(**usual).rows(branches) for branches in (1, 2)] == [(1,), (0, 1)]
    with pytest.raises(ValidationError, match="an open length of up to 32 ids is one chunk without weights, in whole multiples"):
        Tokenizer(**usual, open=OpenLength(dim="words", multiple=5))
    (entry,) = small.draft().tokenizers.values()
    opened = entry.model_copy(update={"open": OpenLength(dim="words")})
    assert listed().model != listed(tokenizers={"tokenizer": opened}).model
