"""Names that people type for samplers stand for a class and a config that compile."""

import inspect

import diffusers
import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.recipe import aliases
from exporter.recipe.schema import Recipe
from exporter.schedulers.compile_sampler import compile_sampler

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


def test_every_shown_name_compiles_where_its_class_has_the_spacing():
    assert len(aliases.shown_names()) == len(set(aliases.shown_names())) > 100
    compiled = 0
    for name in aliases.shown_names():
        kind, config = aliases.expand(name)
        if kind == "DPMSolverSDEScheduler":
            with pytest.raises(UnsupportedError, match="Brownian"):
                compile_sampler(kind, config, 6, 64, 64)
        elif config.keys() <= inspect.signature(getattr(diffusers, kind).__init__).parameters.keys():
            bends = {"clip_sample": False} if kind in {"DDIMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler"} else {}
            assert compile_sampler(kind, config | bends, 6, 64, 64).ops
            compiled += 1
        else:
            with pytest.raises(RecipeError, match="has no option"):
                compile_sampler(kind, config, 6, 64, 64)
    assert compiled > 80


def test_a_misspelling_is_answered_with_the_name_that_was_meant():
    for name, meant in (
        ("DPM++ 2M Karas", "DPM++ 2M Karras"),
        ("eulr a", "Euler a"),
        ("EulerDiscretScheduler", "EulerDiscreteScheduler"),
    ):
        with pytest.raises(RecipeError, match="did you mean") as caught:
            compile_sampler(name, {}, 3, 64, 64)
        assert repr(meant) in str(caught.value)
    for name in ("DPM++ 2S a Karras", "dpmpp_2s_ancestral"):
        with pytest.raises(RecipeError, match=r"no scheduler named .*the nearest that it has is 'DPM\+\+ 2M SDE'"):
            compile_sampler(name, {}, 3, 64, 64)
