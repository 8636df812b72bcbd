"""What a recipe's guidance makes of the denoiser's ports."""

from engines.guidance import Guidance
from engines.signature import Port
from exporter.families.sd import Sd
from exporter.families.unets import steering
from exporter.recipe.sampling import GuidanceOptions, PagOptions, SamplerOptions
from tests.exporter import equality

PAG = GuidanceOptions(mode="none", pag=PagOptions(scale=2.0))


def test_scales_are_inputs_and_what_perturbs_opens_the_branches():
    plain = steering.guidance(GuidanceOptions(mode="classifier_free", scale=5.0))
    assert plain == Guidance.of("classifier_free", 5.0)
    found = steering.guidance(PAG)
    assert (found.branches, found.rows) == (1, 2)
    assert [port.name for port in steering.scales(found)] == ["pag_scale"]
    port = Port(name="prompt_embeds", shape=("batch", 1, 77, 8))
    assert steering.steered(port, found, SamplerOptions(steps=(4,), guidance=PAG)).shape[1] == "branches"
    assert steering.steered(port, Guidance.of("none", None), SamplerOptions(steps=(4,))) == port


def test_a_layer_that_is_not_there_is_a_problem_of_the_recipe(tiny_sd):
    guidance = GuidanceOptions(mode="none", pag=PagOptions(layers=("transformer_blocks.7",)))
    told = equality.problems(Sd, tiny_sd, sampler=SamplerOptions(steps=(4,), guidance=guidance))
    assert told.startswith("sampler.guidance.pag.layers: 'transformer_blocks.7' names no self-attention of this UNet")
