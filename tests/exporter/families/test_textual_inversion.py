"""Words of several vectors: the recording, the run time and diffusers tokenize the same."""

import numpy as np
import pytest
import torch

from engines.tokenizer import TextTokenizer
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan

TEXT = """\
model: {source: %s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 4.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32]}
checks: {prompts: ["a <cat> in the rain <dog>"], negative_prompt: "<cat>"}
"""


@pytest.fixture(scope="module")
def family(tiny_sd, tmp_path_factory):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    pipeline.load_textual_inversion({"<cat>": vectors})
    pipeline.load_textual_inversion({"<dog>": vectors[0]})
    folder = tmp_path_factory.mktemp("inverted")
    pipeline.save_pretrained(folder)
    return Plan(Recipe.parse(TEXT % folder, "x")).family


def test_ids_are_those_that_diffusers_encodes(family, tmp_path):
    reference = family.reference()
    pipeline = reference.pipeline
    checks = family.recipe.checks
    recorded = reference.tokenize(checks.prompts, checks.negative_prompt)["tokenizer_ids"]
    own = [*range(533, 537)]
    assert [number for number in recorded[0, 1] if number in own] == own
    assert [number for number in recorded[0, 0] if number in own] == own[:3]
    entry, text = family.tokenizers()["tokenizer"]
    (tmp_path / "t.json").write_text(text)
    ids, _, _ = TextTokenizer(tmp_path / "t.json", entry.length).encode(["<cat>", "a <cat> in the rain <dog>"])
    assert np.array_equal(ids, recorded[0])
    with torch.no_grad():
        encoded = pipeline.text_encoder(torch.tensor(recorded[0])).last_hidden_state
        wanted = pipeline.encode_prompt("a <cat> in the rain <dog>", "cpu", 1, True, negative_prompt="<cat>")[::-1]  # noqa: FBT003
    assert torch.allclose(encoded, torch.cat(wanted), atol=1e-5)
