"""A transformer taken apart: its first blocks on the residual of its own whole call give what the whole gives."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from engines.errors import RecipeError
from exporter.families.traced import Traced
from exporter.families.tracing import token_counts
from exporter.families.tracing.steps import blocks
from tests.exporter import equality
from tests.exporter.families.test_traced import RECIPE, family

CACHED = RECIPE.replace("steps: [2]", "steps: [9], cache: {every: 3}")


def cells(made: Traced) -> dict[str, int]:
    """Lengths of a picture of 32 × 48 pixels; of texts that are as long as they are, 7."""
    sides = {"latent_height": 32 // made.factor, "latent_width": 48 // made.factor}
    return {**dict.fromkeys(made.survey.open, 7), "batch": 1, **sides}


def given(made: Traced, part: str, sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    """Random inputs of a part."""
    random, found = np.random.default_rng(0), {}
    for port in made.signature(part).inputs:
        shape = made.signature(part).shape(port, sizes)
        array = np.ones(shape, np.int64) if port.dtype == "int64" else random.standard_normal(shape).astype(np.float32)
        found[port.name] = torch.from_numpy(array)
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "mode", "rows"),
    [
        ("pixart-sigma", "classifier_free", (2,)),
        ("stable-diffusion-3", "classifier_free", (2,)),
        ("flux-guided", "embedded", (1,)),
        ("qwenimage", "classifier_free", (1, 1)),
        ("lumina2", "classifier_free", (1, 1)),
        ("z-image", "classifier_free", (2,)),
    ],
)
def test_on_its_own_residual_it_answers_as_the_whole(model, name, mode, rows):
    made = family(model(name), mode, text=CACHED)
    assert made.blocks.rows == rows
    assert made.roles["transformer_shallow"] == "shallow"
    whole, cut = (made.part(part, "fp32").module for part in ("transformer", "transformer_shallow"))
    sizes = cells(made)
    values = given(made, "transformer", sizes)
    answer, deep = whole(*values.values())
    port = made.signature("transformer").port("deep_feature")
    assert port is not None
    assert deep.shape == made.signature("transformer").shape(port, sizes)
    equality.close(cut(*values.values(), deep), answer)
    assert (cut(*values.values(), -deep) - answer).norm() / answer.norm() > 1e-3, "the residual must matter"
    plain = replace_cut(whole)(*values.values())
    equality.close(answer, plain)


def replace_cut(module: Any) -> Any:
    """The same step without a cut."""
    module._cut = None
    return module


@torch.no_grad()
def test_a_shallow_call_computes_the_first_blocks_alone(model):
    made = family(model("flux-guided"), "embedded", text=CACHED)
    ran: list[str] = []
    module: Any = made.part("transformer_shallow", "fp32").module
    network: Any = module.transformer
    for name in made.blocks.skips:
        block = network.get_submodule(name)
        block.attn.register_forward_hook(lambda *_, name=name: ran.append(name))
    module(*given(made, "transformer_shallow", cells(made)).values())
    assert ran == ["transformer_blocks.0"]
    assert not any("forward" in vars(network.get_submodule(name)) for name in made.blocks.skips)


def test_depths_are_of_the_blocks_that_leave_some_for_the_others():
    cut = blocks.Blocks("blocks", "norm_out", None, range(3), (2,), 8, {})
    assert [cut.problem(depth) for depth in range(3)] == ["", "", ""]
    assert cut.problem(3).startswith("sampler.cache.depth: 3 runs 4 blocks of blocks at every step")
    assert cut.problem(3).endswith("what fits: 0 to 2")
    assert replace(cut, depths=range(1)).problem(1).endswith("what fits: 0")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("krea2", "Krea2Transformer2DModel of Krea2Pipeline has no list of blocks of which one gives what its last layers take"),
        ("sana", "SanaTransformer2DModel of SanaPipeline has one block"),
        ("stable-diffusion-pag", "UNet2DConditionModel of StableDiffusionPAGPipeline has no list of blocks of which one gives"),
    ],
)
def test_a_network_that_cannot_be_cut_is_refused_by_its_name(model, name, told):
    with pytest.raises(RecipeError, match=rf"sampler\.cache: {told}.*leave it out"):
        family(model(name), text=CACHED)


def test_a_row_that_is_filled_up_between_the_sizes_of_the_recipe_is_refused(model, monkeypatch):
    """Its picture's tokens are whole 32s at 32, 64 and 96 pixels by 16, and not at 48."""
    monkeypatch.setattr(token_counts, "refuse_stairs", lambda _: None)  # the second's texts are lists, which is refused first
    text = CACHED.replace("height: [32, 32, 32], width: [32, 32, 48]", "height: [32, 64, 96], width: [16, 16, 16]")
    assert family(model("z-image"), text=text).blocks.side == "first", "what fills up stands behind, and is not read"
    with pytest.raises(RecipeError, match="the tokens of ZImageTransformer2DModel of ZImageOmniPipeline are not so many to each"):
        family(model("z-image-omni"), text=text)
    assert family(model("z-image-omni"), text=CACHED).blocks.side == "last"


def test_a_depth_beyond_its_blocks_is_refused(model):
    with pytest.raises(RecipeError, match=r"sampler\.cache\.depth: 4 runs 5 blocks of transformer_blocks .* what fits: 0"):
        family(model("pixart-sigma"), text=CACHED.replace("every: 3", "every: 3, depth: 4"))
