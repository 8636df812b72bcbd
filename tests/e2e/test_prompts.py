"""What a recipe decides about prompts, in bundles: the check covers it, and the picture is the one of diffusers."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engines.pipeline import Pipeline
from exporter.build import build
from exporter.families import claim
from exporter.models.resolve import resolve
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter import models
from tests.exporter.weighted import A1111, Compel, by_hand

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]
RECIPE = """\
model: {source: %s, embeddings: %s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 4.0}}
prompts: %s
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
targets: [onnxruntime]
%s
"""
#: As near as a picture must be, in dB.
NEAR = 60


@pytest.fixture(scope="module")
def tiny_sd(tmp_path_factory):
    stages = {
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    return models.save_sd(tmp_path_factory.mktemp("tiny_sd"), network=models.unet(**stages))


def built(folder, store, source, prompts, more="", embeddings="[]"):
    """A bundle whose check has passed, and the source as a pipeline of diffusers, without the recipe's embeddings."""
    recipe = Recipe.parse(RECIPE % (source, embeddings, prompts, more), "asked")
    bundle, verdicts = build(recipe, folder / "asked", Store(store), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    plain = Recipe.parse(RECIPE % (source, "[]", "{}", ""), "plain")
    pipeline = claim(resolve(plain.model, folder), plain).pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return bundle, pipeline, verdicts


def drawn(bundle, text, negative, noise, **seconds):
    """The bundle's picture before it is rounded to 8 bits: (height, width, 3) in [0, 1]."""
    with Pipeline.open(bundle.folder) as pipeline:
        if fused := bundle.manifest.fused(2):
            return pipeline.at_once(fused, pipeline.tokenize([text], negative)[0], lambda: noise, None)[0]
        conditioning = pipeline.encode([text], negative, **seconds)
        return pipeline.decode(pipeline.sample(conditioning, lambda: noise, pipeline.sampler(2, 32, 32)))[0]


def wanted(pipeline, noise, **texts):
    options = {"guidance_scale": 4.0, "num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}
    return pipeline(latents=torch.from_numpy(noise), **options, **texts).images[0]


def psnr(found, expected):
    return -10 * np.log10(np.square(np.float64(found) - expected).mean() + 1e-20)


@pytest.fixture
def noise():
    return np.random.default_rng(3).standard_normal((1, 4, 8, 8), np.float32)


def test_clip_skip_and_embeddings(tiny_sd, tmp_path, noise):
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)) * 3
    save_file({"emb_params": vectors}, tmp_path / "cat.safetensors")
    asked = f"[{{source: {tmp_path / 'cat.safetensors'}, token: <cat>}}]"
    bundle, source, _ = built(tmp_path, tmp_path / "store", tiny_sd, "{clip_skip: 1}", embeddings=asked)
    assert bundle.manifest.source["embedding 1"].endswith("cat.safetensors: <cat>")
    source.load_textual_inversion({"<cat>": vectors})
    # diffusers 0.42 looks for the final norm there, where transformers 4 had it.
    object.__setattr__(source.text_encoder, "text_model", source.text_encoder)
    texts = {"prompt": "a <cat> on the red sea", "negative_prompt": "blue <cat>"}
    near = wanted(source, noise, **texts, clip_skip=1)
    far = wanted(source, noise, **texts)
    found = drawn(bundle, *texts.values(), noise)
    assert psnr(found, near) >= NEAR
    assert psnr(found, far) < NEAR - 10


def embeddings(source, towers, fragments, rule, layer):
    """States of a text by hand, joined along the channels, and the pooled one of its first chunk."""
    states, pooled = [], None
    for tower, name in towers.items():
        encoder, tokenizer = getattr(source, tower), getattr(source, name)

        def encode(ids, mask=None, encoder=encoder):
            return layer(encoder(ids, attention_mask=mask, output_hidden_states=True))

        states.append(by_hand(tokenizer, encode, fragments, 2, rule))
        text = " ".join(text for text, _ in fragments)
        first = torch.tensor([tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids])
        pooled = getattr(encoder(first), "text_embeds", None)
    return torch.cat(states, -1), pooled


@torch.no_grad()
def test_chunks_weights_and_a_second_prompt_of_sdxl(tiny_sdxl, tmp_path, noise):
    bundle, source, verdicts = built(tmp_path, tmp_path / "store", tiny_sdxl, "{chunks: 2, weights: a1111}")
    assert any("long and weighted" in verdict.case for verdict in verdicts if verdict.part == "text_encoder_2")
    more = "the square of an ant " * 12
    texts = f"a (red circle:1.4) {more}", f"a [blue] sea {more}"
    fragments = (
        [("a", 1.0), ("red circle", 1.4), (more, 1.0)],
        [("a", 1.0), ("blue", 1 / 1.1), ("sea", 1.0), (more, 1.0)],
    )
    negative = [("the", 1.0), ("sea", 1.2)]

    def layer(found):
        return found.hidden_states[-2]

    def of(first, second):
        states = embeddings(source, {"text_encoder": "tokenizer"}, first, A1111(), layer)[0]
        other, pooled = embeddings(source, {"text_encoder_2": "tokenizer_2"}, second, A1111(), layer)
        return torch.cat([states, other], -1), pooled

    for second in (0, 1):
        states, pooled = of(fragments[0], fragments[second])
        against, pooled_against = of(negative, negative)
        own = {"prompt_embeds": states, "pooled_prompt_embeds": pooled}
        own |= {"negative_prompt_embeds": against, "negative_pooled_prompt_embeds": pooled_against}
        seconds = {"prompt_2": [texts[1]]} if second else {}
        assert psnr(drawn(bundle, texts[0], "the (sea:1.2)", noise, **seconds), wanted(source, noise, **own)) >= NEAR
        plain = {**own, "prompt_embeds": of([(f"a red circle {more}", 1.0)], fragments[second])[0]}
        assert psnr(drawn(bundle, texts[0], "the (sea:1.2)", noise, **seconds), wanted(source, noise, **plain)) < NEAR - 10


@torch.no_grad()
@pytest.mark.slow  # as the weights of A1111 are, and compel's rule has its own tests
def test_weights_of_compel_in_one_graph(tiny_sd, tmp_path, noise):
    bundle, source, _ = built(tmp_path, tmp_path / "store", tiny_sd, "{chunks: 2, weights: compel}", "pipeline: fused")
    towers = {"text_encoder": "tokenizer"}

    def layer(found):
        return found.last_hidden_state

    own = {
        "prompt_embeds": embeddings(source, towers, [("a", 1.0), ("red circle", 1.5), ("sea", 0.3)], Compel(), layer)[0],
        "negative_prompt_embeds": embeddings(source, towers, [("sea", 1.1), ("blue", 0.9)], Compel(), layer)[0],
    }
    found = drawn(bundle, "a (red circle)1.5 (sea)0.3", "sea+ blue-", noise)
    assert psnr(found, wanted(source, noise, **own)) >= NEAR
    plain = embeddings(source, towers, [("a", 1.0), ("red circle", 1.5), ("sea", 1.0)], Compel(), layer)[0]
    assert psnr(found, wanted(source, noise, **{**own, "prompt_embeds": plain})) < NEAR - 10
