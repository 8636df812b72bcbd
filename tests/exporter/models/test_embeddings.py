"""Textual inversions of every format that is named, against diffusers' own loading of the same vectors."""

import pytest
import torch
from safetensors.torch import save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.families.sd import Sd
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from tests.exporter import equality

RECIPE = """\
model: {source: SOURCE, embeddings: EMBEDDINGS}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 4.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32]}
"""


def vectors(count, width=16, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3


def family(source, embeddings):
    return Plan(Recipe.parse(RECIPE.replace("SOURCE", str(source)).replace("EMBEDDINGS", embeddings), "x")).family


def encoded(pipeline, prompt, **options):
    with torch.no_grad():
        found = pipeline.encode_prompt(prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **options)
    return [tensor for tensor in found if tensor is not None]


def same(ours, theirs, prompt, negative):
    """Both encode prompts so, with the words and without."""
    for texts in ((prompt, negative), ("a red circle", "the blue square")):
        found, wanted = (encoded(each, texts[0], negative_prompt=texts[1]) for each in (ours, theirs))
        for one, other in zip(found, wanted, strict=True):
            equality.close(one, other)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("key", ["<cat>", "emb_params", "*"])
def test_of_one_encoder(tiny_sd, tmp_path, key, count):
    from diffusers import StableDiffusionPipeline

    file = tmp_path / "mystyle.safetensors"
    save_file({key: vectors(count)}, file)
    named = f"[{{source: {file}, token: <cat>}}]"
    made = family(tiny_sd, f"[{file}]" if key == "<cat>" else named)
    theirs = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    theirs.load_textual_inversion({"<cat>": vectors(count)})
    same(made.pipeline(), theirs, "a <cat> in the rain", "the <cat> <cat>")
    without = encoded(family(tiny_sd, "[]").pipeline(), "a <cat> in the rain")
    assert not torch.allclose(without[0], encoded(theirs, "a <cat> in the rain")[0], atol=1e-2)
    assert made.checkpoint.provenance["embedding 1"] == f"{file}: <cat>"


def test_a_file_without_a_word_is_called_by_its_name(tiny_sd, tmp_path):
    save_file({"emb_params": vectors(2)}, tmp_path / "mystyle.safetensors")
    made = family(tiny_sd, f"[{tmp_path / 'mystyle.safetensors'}]")
    assert [each.tokens for each in made.checkpoint.embeddings] == [("mystyle", "mystyle_1")]
    assert len(made.tokenizer("tokenizer")) == 533 + 2


def test_of_one_vector_without_an_axis_and_several_words(tiny_sd, tmp_path):
    from diffusers import StableDiffusionPipeline

    cat, dog = vectors(1)[0], vectors(2, seed=1)
    save_file({"<cat>": cat, "<dog>": dog}, tmp_path / "learned_embeds.safetensors")
    theirs = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    theirs.load_textual_inversion({"<cat>": cat})
    theirs.load_textual_inversion({"<dog>": dog})
    same(family(tiny_sd, f"[{tmp_path}]").pipeline(), theirs, "a <dog> on <cat>", "<cat>")


def test_of_both_encoders_of_sdxl(tiny_sdxl, tmp_path):
    from diffusers import StableDiffusionXLPipeline

    file, learned = tmp_path / "pair.safetensors", {"clip_l": vectors(2), "clip_g": vectors(2, 24, 1)}
    save_file(learned, file)
    made = family(tiny_sdxl, f"[{{source: {file}, token: <cat>}}]")
    theirs = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    for key, suffix in (("clip_l", ""), ("clip_g", "_2")):
        own = {"text_encoder": getattr(theirs, f"text_encoder{suffix}"), "tokenizer": getattr(theirs, f"tokenizer{suffix}")}
        theirs.load_textual_inversion({"<cat>": learned[key]}, **own)
    same(made.pipeline(), theirs, "a <cat> in the rain", "the <cat> <cat>")
    assert not made.checkpoint.notes


@pytest.mark.parametrize("what", ["clip_l", "emb_params", "string_to_param.*"])
def test_words_that_a_lora_brings_along(tiny_sd, tmp_path, what):
    from diffusers import StableDiffusionPipeline

    layer = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    pieces = {f"{layer}.lora_down.weight": vectors(2), f"{layer}.lora_up.weight": vectors(32, 2)}
    save_file({f"bundle_emb.mycat.{what}": vectors(3)}, tmp_path / "words.safetensors")
    save_file({f"bundle_emb.mycat.{what}": vectors(3), **pieces}, tmp_path / "both.safetensors")
    made = family(tiny_sd, f"[], loras: [{{source: {tmp_path / 'words.safetensors'}}}]")
    theirs = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    theirs.load_textual_inversion({"mycat": vectors(3)})
    same(made.pipeline(), theirs, "a mycat in the rain", "the mycat mycat")
    assert made.checkpoint.provenance["embedding 1"] == "LoRA words.safetensors: mycat"
    assert made.checkpoint.loras[0].components == set()
    changed = family(tiny_sd, f"[], loras: [{{source: {tmp_path / 'both.safetensors'}}}]")
    tower = getattr(theirs.text_encoder, "text_model", theirs.text_encoder)  # of transformers 4
    tower.encoder.layers[0].mlp.fc1.weight.data += vectors(32, 2) @ vectors(2)
    same(changed.pipeline(), theirs, "a mycat in the rain", "the mycat mycat")


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("bundle_emb.mycat.clip_g", vectors(1), "has vectors of 16 channels"),
        ("bundle_emb.mycat.other", vectors(1), "is no embedding of a word"),
        ("bundle_emb.mycat", vectors(1), "is no embedding of a word"),
        ("bundle_emb.mycat.clip_l", vectors(1)[None], "is no embedding of a word"),
    ],
)
def test_words_of_a_lora_that_cannot_be_read(tiny_sd, tmp_path, key, tensor, message):
    save_file({key: tensor}, tmp_path / "words.safetensors")
    with pytest.raises(UnsupportedError, match=message):
        family(tiny_sd, f"[], loras: [{{source: {tmp_path / 'words.safetensors'}}}]")


def test_a_word_of_a_lora_and_of_an_embedding(tiny_sd, tmp_path):
    save_file({"bundle_emb.cat.clip_l": vectors(1)}, tmp_path / "words.safetensors")
    save_file({"emb_params": vectors(1)}, tmp_path / "cat.safetensors")
    asked = f"[{tmp_path / 'cat.safetensors'}], loras: [{{source: {tmp_path / 'words.safetensors'}}}]"
    with pytest.raises(RecipeError, match=r"model\.loras\[0\]: 'cat' is a word of cat\.safetensors too; name one otherwise"):
        family(tiny_sd, asked)


def test_of_one_of_two_encoders_is_said_so(tiny_sdxl, tmp_path):
    save_file({"<cat>": vectors(2, 24)}, tmp_path / "cat.safetensors")
    made = family(tiny_sdxl, f"[{tmp_path / 'cat.safetensors'}]")
    assert [each.tower for each in made.checkpoint.embeddings] == ["text_encoder_2"]
    (note,) = made.checkpoint.notes
    assert note == "embedding cat.safetensors: <cat> is taught to text_encoder_2; to text_encoder it is plain text"


def test_they_are_in_the_digests_of_whom_they_teach(tiny_sdxl, tmp_path):
    file = tmp_path / "cat.safetensors"
    plain = family(tiny_sdxl, "[]").checkpoint
    found = set()
    for seed, token in ((0, "<cat>"), (1, "<cat>"), (1, "<dog>")):
        save_file({"emb_params": vectors(1 + seed, 24, seed)}, file)
        made = family(tiny_sdxl, f"[{{source: {file}, token: {token}}}]").checkpoint
        found.add((made.digest("text_encoder_2"), made.digest("tokenizer_2")))
        for name in ("text_encoder", "tokenizer", "unet", "vae"):
            assert made.digest(name) == plain.digest(name)
    assert len(found | {(plain.digest("text_encoder_2"), plain.digest("tokenizer_2"))}) == 4


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({"emb_params": vectors(1, 20)}, "", "has vectors of 20 channels, and this model reads text_encoder's 16"),
        ({"clip_g": vectors(1)}, "", "has vectors of 16 channels"),
        ({"emb_params": vectors(1), "<cat>": vectors(1)}, "", "no textual inversion: it holds <cat>, emb_params"),
        ({"emb_params": vectors(1)[None]}, "", "no textual inversion"),
        ({"emb_params": vectors(1) * torch.inf}, ", token: <cat>", "NaN or infinity"),
    ],
)
def test_what_is_none_or_another_model_s_is_refused(tiny_sd, tmp_path, tensors, options, message):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(UnsupportedError, match=message):
        family(tiny_sd, f"[{{source: {tmp_path / 'x.safetensors'}{options}}}]").pipeline()


@pytest.mark.parametrize("name", ["cat.pt", "cat.bin"])
def test_a_pickle_is_refused(tiny_sd, tmp_path, name):
    torch.save({"string_to_param": {"*": vectors(1)}}, tmp_path / name)
    with pytest.raises(UnsupportedError, match="only as a pickle"):
        family(tiny_sd, f"[{tmp_path / name}]")


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ("[a.safetensors, {source: b.safetensors, token: <a>}]", "embeddings[1]: '<a>' is a word of a.safetensors too; name one"),
        ("[{source: a.safetensors, token: two words}]", "'two words' is not one word"),
        ("[{source: both.safetensors, token: <c>}]", "names 2 words of its own, <a>, <b>; leave it out"),
        ("[gone.safetensors]", "model.embeddings[0].source: 'gone.safetensors' is neither a file or folder"),
        ("[{source: b.safetensors, token: red}]", ""),
        ("[{source: b.safetensors, token: re}]", "'re' is a token already; give it another with token: <re>"),
    ],
)
def test_problems_say_where(tiny_sd, tmp_path, monkeypatch, embeddings, message):
    monkeypatch.chdir(tmp_path)
    save_file({"<a>": vectors(1)}, "a.safetensors")
    save_file({"emb_params": vectors(1)}, "b.safetensors")
    save_file({"<a>": vectors(1), "<b>": vectors(1)}, "both.safetensors")
    if not message:
        family(tiny_sd, embeddings).tokenizers()
        return
    with pytest.raises(RecipeError) as caught:
        family(tiny_sd, embeddings).tokenizers()
    assert message in str(caught.value)


def test_random_weights_learn_no_words(tiny_sd):
    model = {"weights": "random", "embeddings": ("x.safetensors",)}
    with pytest.raises(RecipeError, match="to random weights no word means anything"):
        equality.family(Sd, tiny_sd, model=model)
