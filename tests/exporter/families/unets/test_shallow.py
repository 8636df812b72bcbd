"""A UNet taken apart: its outermost layers on its own deep feature give what the whole gives, bit for bit but for rounding."""

import numpy as np
import pytest
import torch

from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.families.unets import shallow
from exporter.recipe.sampling import CacheOptions, GuidanceOptions, SamplerOptions
from tests.exporter import equality, models

CUTS = {
    "sd": ({"layers_per_block": 2}, (0, 1)),
    "bk_tiny": ({"layers_per_block": 1, "mid_block_type": None}, (0,)),
    "sdxs": (
        {
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "mid_block_type": None,
            "layers_per_block": 2,
        },
        (0, 1),
    ),
}


@pytest.mark.parametrize(("kind", "depth"), [(kind, depth) for kind, (_, depths) in CUTS.items() for depth in depths])
def test_on_its_own_deep_feature_it_answers_as_the_whole(kind, depth):
    unet = models.unet(**CUTS[kind][0]).eval()
    latent, states = equality.latents(height=8, width=8), torch.randn(2, 77, unet.config.cross_attention_dim)
    with torch.no_grad(), shallow.watched(unet, depth) as kept:
        whole = unet(latent, 300, encoder_hidden_states=states, return_dict=False)[0]
        found = shallow.shallow(unet, depth, kept[0], latent, torch.tensor([300.0, 300.0]), states)
        assert kept[0].shape == (2, unet.config.block_out_channels[0], 8, 8)
        equality.close(found, whole)
        stale = shallow.shallow(unet, depth, kept[0] + 1, latent, torch.tensor([300.0, 300.0]), states)
    assert (stale - whole).norm() / whole.norm() > 1e-3, "the deep feature must matter"


def fresh(features):
    """Calls that left a deep feature."""
    return [index for index, feature in enumerate(features) if index == 0 or feature is not features[index - 1]]


def cached(cls, folder, cache, **guidance):
    options = GuidanceOptions(mode="classifier_free", scale=5.0, **guidance)
    sampler = SamplerOptions(scheduler="DDIMScheduler", steps=(9,), guidance=options, cache=cache)
    return equality.family(cls, folder, sampler=sampler)


@pytest.mark.parametrize(("cls", "source"), [(Sd, "tiny_sd"), (Sdxl, "tiny_sdxl")])
def test_both_parts_of_a_family_are_the_sources_pipeline_with_the_same_caching(cls, source, request):
    family = cached(cls, request.getfixturevalue(source), CacheOptions(every=3))
    reference = family.reference()
    conditioning = reference.encode(["a red circle"], None)
    answers, seen = [], []
    step, own = reference.pipeline.scheduler.step, reference.pipeline.unet.forward
    reference.pipeline.scheduler.step = lambda output, *args, **kwargs: (answers.append(output), step(output, *args, **kwargs))[1]

    def see(_, args, kwargs):
        sample, time = (*args, *(kwargs[name] for name in ("sample", "timestep") if name in kwargs))[:2]
        seen.append((sample[:1], float(time)))

    hook = reference.pipeline.unet.register_forward_pre_hook(see, with_kwargs=True)
    size = {"height": 32, "width": 32, "num_inference_steps": 9, "output_type": "latent"}
    reference.call(conditioning, 5.0, latents=equality.latents(batch=1, height=8, width=8), **size)
    hook.remove()
    assert reference.pipeline.unet.forward == own
    assert len(reference.features) == len(answers) == 9
    assert fresh(reference.features) == [0, 3, 6]
    parts = {name: family.part(name, "fp32") for name in ("unet", "unet_shallow")}
    for index in (0, 1, 8):
        negative, positive = reference.features[index].chunk(2)
        deep = torch.stack([negative, positive], dim=1)
        given = {name: torch.from_numpy(array) for name, array in conditioning.items()}
        latent, time = seen[index]
        given |= {"latent": latent, "timestep": torch.tensor([time]), "guidance_scale": torch.tensor([5.0]), "deep_feature": deep}
        name = "unet_shallow" if index % 3 else "unet"
        with torch.no_grad():
            found = parts[name].module(*(given[port.name] for port in parts[name].signature.inputs))
        if name == "unet":
            found, kept = found
            equality.close(kept, deep)
        equality.close(found, answers[index])


def test_the_first_step_with_guidance_after_one_without_is_whole(tiny_sd):
    family = cached(Sd, tiny_sd, CacheOptions(every=4), interval=(0.25, 1.0))
    reference = family.reference()
    size = {"height": 32, "width": 32, "num_inference_steps": 9, "output_type": "latent"}
    reference.call(reference.encode(["a red circle"], None), 5.0, latents=equality.latents(batch=1, height=8, width=8), **size)
    assert reference.scales == [1.0] * 2 + [5.0] * 7
    assert fresh(reference.features) == [0, 2, 6]


def test_every_call_is_compared_with_what_earlier_ones_leave():
    unet, seen = models.unet(layers_per_block=2).eval(), {}
    states = torch.randn(2, 77, unet.config.cross_attention_dim)
    latents = [equality.latents(height=8, width=8, seed=seed) for seed in range(3)]
    own = unet.forward
    with torch.no_grad():
        with shallow.compared(unet, (0, 1), 1, lambda *told: seen.update({told[:3]: told[3]})):
            answers = [unet(latent, 300, encoder_hidden_states=states, return_dict=False)[0] for latent in latents]
        assert unet.forward == own
        # Of three calls the last two have one before them; none reaches back further than that.
        assert list(seen) == [(0, 0, 1), (1, 0, 1), (0, 1, 2), (1, 1, 2)]
        for (depth, origin, call), error in seen.items():
            with shallow.watched(unet, depth) as kept:
                unet(latents[origin], 300, encoder_hidden_states=states)
            found = shallow.shallow(unet, depth, kept[0], latents[call], torch.tensor([300.0, 300.0]), states)
            assert np.linalg.norm(error) > 1e-3
            equality.close(answers[call].flatten(1) + torch.from_numpy(error), found.flatten(1))
