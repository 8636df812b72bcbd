from exporter.families.unets import step_problems
from exporter.recipe.sampling import CacheOptions, GuidanceOptions, SamplerOptions
from tests.exporter import equality


def problems(config, mode="classifier_free", *, rescales=True, components=(), **more):
    guidance = GuidanceOptions(mode=mode, scale=None if mode == "none" else 3.0, rescale=more.pop("rescale", 0.0))
    sampler = SamplerOptions(steps=(9,), guidance=guidance, **more)
    recipe = equality.recipe("anywhere", sampler=sampler, components=components)
    return "\n".join(step_problems.problems(recipe, config, "StableDiffusionPipeline", rescales_from_images=rescales))


def test_guidance_must_be_of_the_kind_that_the_network_takes():
    assert problems({}) == ""
    assert "use classifier_free or none" in problems({}, "embedded")
    assert "use embedded" in problems({"time_cond_proj_dim": 256})
    assert "StableDiffusionImg2ImgPipeline has none" in problems({}, rescale=0.5, rescales=False, components=("vae_encoder",))


def test_a_cache_must_fit_the_networks_outermost_blocks():
    assert problems({}, cache=CacheOptions(every=3, depth=1)) == ""
    told = problems({}, cache=CacheOptions(every=3, depth=2))
    assert told == "sampler.cache.depth: depth 2 is deeper than the outermost blocks of this UNet; what fits: 0 to 1"
