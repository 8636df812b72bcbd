"""Names that people type for samplers stand for a class and a config; that these compile test_compile_sampler.py says."""

import pytest

from exporter.recipe import aliases
from exporter.recipe.schema import Recipe

SPELLED = {
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde_gpu karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    "DPM++ 3M SDE Exponential": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "use_exponential_sigmas": True, "timestep_spacing": "linspace"},
    ),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "Euler A": ("EulerAncestralDiscreteScheduler", {}),
    "k_euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "sample_heun": ("HeunDiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "uni_pc_bh2": ("UniPCMultistepScheduler", {}),
    "euler sgm_uniform": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler_simple": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "ddim": ("DDIMScheduler", {}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
}
TEXT = "model: {{source: a}}\nsampler: {{scheduler: {name}, steps: [4]{more}}}\nshapes: {{height: [8, 8, 8], width: [8, 8, 8]}}\n"


@pytest.mark.parametrize("name", SPELLED)
def test_a_name_is_its_class_and_config(name):
    assert aliases.expand(name) == SPELLED[name]
    sampler = Recipe.parse(TEXT.format(name=name, more=""), "x").sampler
    assert (sampler.scheduler, sampler.config) == SPELLED[name]


def test_the_recipes_own_config_wins_and_a_class_is_itself():
    text = TEXT.format(name="DPM++ 2M SDE Karras", more=", config: {algorithm_type: dpmsolver++, solver_order: 3}")
    config = Recipe.parse(text, "x").sampler.config
    assert config == {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True, "solver_order": 3}
    assert aliases.expand("EulerDiscreteScheduler") is None
    assert Recipe.parse(TEXT.format(name="EulerDiscreteScheduler", more=""), "x").sampler.config == {}
