"""Networks in which the pictures of one batch see each other are told from those in which they do not."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engines.errors import RecipeError
from exporter.families.tracing.steps.neighbours import along_the_batch
from tests.exporter.families.test_traced import RECIPE, family
from tools.coverage.models import MADE


class Pooling(nn.Module):
    """Attention over states (batch, length, channels), of which torch's own module is given one order or the other."""

    def __init__(self, *, first: bool, turned: bool) -> None:
        super().__init__()
        self.attention, self._turned = nn.MultiheadAttention(8, 2, batch_first=first), turned

    def forward(self, states):
        rows = states.transpose(0, 1) if self._turned else states
        return self.attention(query=rows, key=rows, value=rows)[0]


@pytest.mark.parametrize(
    ("first", "turned", "mixed"), [(False, False, True), (False, True, False), (True, False, False)], ids=str
)
def test_attention_along_the_batch_is_told_from_that_along_a_text(first, turned, mixed):
    network = Pooling(first=first, turned=turned)

    def follow(_watch, _begun, size):
        network(torch.rand(size[0], 5, 8))

    survey = SimpleNamespace(pipeline=SimpleNamespace(unet=network), components={"denoiser": ["unet"]}, follow=follow)
    assert along_the_batch(survey, 32, 32) == mixed
    assert not network.attention._forward_pre_hooks, "what watched is gone"


def test_a_recipe_for_several_pictures_at_once_is_told_of_it(tmp_path):
    MADE["stable-diffusion-xl-controlnet-union"]().save_pretrained(tmp_path)
    text = RECIPE.replace("{source: %s}", "{source: %s, call: {control_mode: [1]}}")
    with pytest.raises(RecipeError, match=r"shapes.batch: a network of StableDiffusionXLControlNetUnionPipeline attends along"):
        family(tmp_path, text=text)
