"""What a recipe decides about prompts, against diffusers: same weights, same texts, same conditioning."""

from types import SimpleNamespace

import pytest
import torch

from engines.tokenizer import Tokenizers
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.recipe.prompts import Prompts
from tests.exporter import equality

PROMPTS, NEGATIVES = equality.PROMPTS, equality.NEGATIVES


@pytest.fixture(params=["sd", "sdxl"])
def model(request, tiny_sd, tiny_sdxl):
    return {"sd": (Sd, tiny_sd), "sdxl": (Sdxl, tiny_sdxl)}[request.param]


def conditioning(family, fed):
    """Outputs of every text part, by port."""
    found = {}
    with torch.no_grad():
        for tower in family.towers:
            part = family.part(tower, "fp32")
            outputs = part.module(*(torch.from_numpy(fed[port.name]) for port in part.signature.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            found |= dict(zip([port.name for port in part.signature.outputs], outputs, strict=True))
    return found


@pytest.mark.parametrize("mode", ["classifier_free", "none"])
@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_is_that_of_diffusers(model, mode, skip):
    family = equality.family(*model, mode, prompts=Prompts(clip_skip=skip))
    plain = equality.family(*model, mode)
    negative = NEGATIVES[0] if mode == "classifier_free" else None
    reference = family.reference()
    found = conditioning(family, reference.tokenize(PROMPTS, negative))
    usual = conditioning(plain, reference.tokenize(PROMPTS, negative))
    wanted = reference.encode(PROMPTS, negative)
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        equality.close(tensor, torch.from_numpy(wanted[name]))
    states = found["prompt_embeds"], usual["prompt_embeds"]
    assert not torch.allclose(states[0][:, -1], states[1][:, -1], atol=1e-2)
    if mode == "classifier_free":
        assert torch.equal(states[0][:, 0], states[1][:, 0]), "diffusers skips for the prompt alone"


def test_layers_that_are_not_there_cannot_be_skipped(model):
    most = 2 if model[0] is Sdxl else 3
    assert not equality.problems(*model, prompts=Prompts(clip_skip=most))
    found = equality.problems(*model, prompts=Prompts(clip_skip=most + 1))
    assert found == f"prompts.clip_skip: {most + 1} is more than the text encoders' layers allow; take at most {most}"


def test_a_second_prompt_is_that_of_diffusers(tiny_sdxl, tmp_path):
    family = equality.family(Sdxl, tiny_sdxl)
    pipeline = family.reference().pipeline
    files = {}
    for name, (_, text) in family.tokenizers().items():
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(text)
    entries = {name: entry for name, (entry, _) in family.tokenizers().items()}
    manifest = SimpleNamespace(guidance=family.guidance, tokenizers=entries)
    bundle = SimpleNamespace(manifest=manifest, path=lambda file: files[file.removeprefix("tokenizers/").removesuffix(".json")])
    fed, _ = Tokenizers(bundle).encode(PROMPTS, NEGATIVES, prompt_2=["the sea", ""], negative_prompt_2=["", "blue"])
    found = conditioning(family, fed)
    with torch.no_grad():
        # Where one is empty diffusers reads the first, which it tells of the whole list alone.
        second = {"prompt_2": ["the sea", PROMPTS[1]], "negative_prompt_2": [NEGATIVES[0], "blue"]}
        wanted = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=True, negative_prompt=NEGATIVES, **second)
    states = torch.cat([found["prompt_embeds"], found["prompt_embeds_2"]], -1)
    for branch, index in ((1, 0), (0, 1)):
        equality.close(states[:, branch], wanted[index])
        equality.close(found["pooled_prompt_embeds"][:, branch], wanted[index + 2])
