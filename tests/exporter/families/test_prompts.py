"""What a recipe decides about prompts, against diffusers: same weights, same texts, same conditioning."""

import pytest
import torch

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
