"""A branch more, whose self-attention is the identity, as diffusers' own pipelines with perturbed-attention guidance have it."""

import pytest
import torch

from engines.denoising import BoundDenoiser
from engines.errors import UnsupportedError
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.families.unets.perturbed import perturbed_first, perturbing
from exporter.recipe.sampling import CacheOptions, GuidanceOptions, PagOptions, SamplerOptions
from tests.exporter import equality, models

KINDS = [(Sd, "tiny_sd"), (Sdxl, "tiny_sdxl")]
STEPS = 9


def perturbed(cls, folder, mode, layers=("mid",), *, adaptive=0.0, cache=None, **guidance):
    pag = PagOptions(scale=3.0, layers=layers, adaptive=adaptive)
    options = GuidanceOptions(mode=mode, scale=None if mode == "none" else 5.0, pag=pag, **guidance)
    sampler = SamplerOptions(scheduler="DDIMScheduler", steps=(STEPS,), guidance=options, cache=cache)
    return equality.family(cls, folder, sampler=sampler)


class Draft:
    """What the run time knows of a denoiser."""

    def __init__(self, family):
        self.guidance, self._family = family.guidance, family

    def with_role(self, role):
        names = [name for name, found in self._family.roles.items() if found == role]
        return {name: type("Entry", (), {"signature": self._family.signature(name)}) for name in names}


def compared(family, scales, *, pictures=1, height=8, width=12):
    """Every answer of the wrapped parts, played by the run time, and of diffusers' pipeline, at the same times and latents."""
    reference = family.reference()
    prompts = equality.PROMPTS[:pictures]
    conditioning = reference.encode(prompts, "blurry" if family.branches == 2 else None)
    answers, seen = [], []
    pipeline = reference.pipeline
    step = pipeline.scheduler.step
    pipeline.scheduler.step = lambda output, *args, **kwargs: (answers.append(output), step(output, *args, **kwargs))[1]

    def see(_, args, kwargs):
        sample, time = (*args, *(kwargs[name] for name in ("sample", "timestep") if name in kwargs))[:2]
        seen.append((sample[:pictures].numpy(), float(time)))

    hook = pipeline.unet.register_forward_pre_hook(see, with_kwargs=True)
    size = {"height": 4 * height, "width": 4 * width, "num_inference_steps": STEPS, "output_type": "latent"}
    own = {"pag_scale": scales["pag_scale"]} if "pag_scale" in scales else {}
    latents = equality.latents(batch=pictures, height=height, width=width)
    reference.call(conditioning, scales.get("guidance_scale"), latents=latents, **size, **own)
    hook.remove()
    calls = []
    parts = {name: family.part(name, "fp32") for name, role in family.roles.items() if role in {"denoiser", "shallow"}}

    def run(name, pool):
        part = parts[name]
        given = [torch.from_numpy(pool[port.name].copy()) for port in part.signature.inputs]
        calls.append((name, int(given[2].shape[1])))
        with torch.no_grad():
            made = part.module(*given)
        several = made if isinstance(made, tuple) else [made]
        return {port.name: tensor.numpy() for port, tensor in zip(part.signature.outputs, several, strict=True)}

    denoise = BoundDenoiser(run, Draft(family), conditioning, family.guidance.fed(scales))
    sampler = family.recipe.sampler
    shares, wholes = sampler.guidance.shares(STEPS) or [None] * STEPS, sampler.wholes(STEPS)
    found = [
        denoise(latent, time, guided=share, shallow=not whole)
        for (latent, time), share, whole in zip(seen, shares, wholes, strict=True)
    ]
    return [torch.from_numpy(each) for each in found], answers, calls


def alike(found, answers):
    assert len(found) == len(answers) == STEPS
    for mine, theirs in zip(found, answers, strict=True):
        equality.close(mine, theirs)


BRANCHES = {
    ("classifier_free", 5.0, 3.0): 3,
    ("classifier_free", 1.0, 3.0): 2,
    ("classifier_free", 5.0, 0.0): 2,
    ("classifier_free", 1.0, 0.0): 1,
    ("none", None, 3.0): 2,
    ("none", None, 0.0): 1,
}


@pytest.mark.parametrize(("cls", "source"), KINDS)
@pytest.mark.parametrize(("mode", "scale", "pag"), BRANCHES)
def test_it_is_diffusers_own_pipeline_and_computes_the_branches_that_count(cls, source, mode, scale, pag, request):
    family = perturbed(cls, request.getfixturevalue(source), mode)
    assert type(family.reference().pipeline).__name__ == f"{cls.pipeline_class.removesuffix('Pipeline')}PAGPipeline"
    scales = {"pag_scale": pag} | ({} if scale is None else {"guidance_scale": scale})
    found, answers, calls = compared(family, scales, pictures=2)
    alike(found, answers)
    assert {count for _, count in calls} == {BRANCHES[mode, scale, pag]}


@pytest.mark.parametrize(("cls", "source"), KINDS)
def test_it_goes_with_intervals_rescaling_and_a_scale_that_falls(cls, source, request):
    options = {"interval": (0.25, 0.8), "rescale": 0.7, "adaptive": 0.005, "layers": ("mid", r"down_blocks\.\d")}
    family = perturbed(cls, request.getfixturevalue(source), "classifier_free", **options)
    found, answers, calls = compared(family, {"guidance_scale": 5.0})
    alike(found, answers)
    assert [count for _, count in calls] == [1, 1, 3, 3, 3, 3, 3, 1, 1]
    found, answers, calls = compared(family, {"guidance_scale": 1.0})  # where diffusers rescales nothing
    alike(found, answers)
    assert [count for _, count in calls] == [1, 1, 2, 2, 2, 2, 2, 1, 1]


def test_it_pauses_without_other_guidance_too(tiny_sd):
    found, answers, calls = compared(perturbed(Sd, tiny_sd, "none", interval=(0.25, 0.8)), {})
    alike(found, answers)
    assert [count for _, count in calls] == [1, 1, 2, 2, 2, 2, 2, 1, 1]


def test_every_scale_is_moved_along_by_those_of_steps(tiny_sd):
    scales = (5.0, 3.0, 1.0, 5.0, 5.0, 2.0, 2.0, 1.0, 9.0)
    found, answers, calls = compared(perturbed(Sd, tiny_sd, "classifier_free", scales=scales), {"guidance_scale": 5.0})
    alike(found, answers)
    assert [count for _, count in calls] == [3, 3, 1, 3, 3, 3, 3, 1, 3]


@pytest.mark.parametrize(("cls", "source"), KINDS)
def test_shallow_steps_keep_what_a_whole_one_left_in_every_branch(cls, source, request):
    layers = ("mid",) if cls is Sdxl else ("mid", "up_blocks")
    family = perturbed(cls, request.getfixturevalue(source), "classifier_free", layers, cache=CacheOptions(every=3))
    found, answers, calls = compared(family, {"guidance_scale": 5.0})
    alike(found, answers)
    assert [name.removeprefix("unet") for name, _ in calls] == ["", "_shallow", "_shallow"] * 3


def test_pictures_of_one_batch_may_differ_in_what_is_on(tiny_sd):
    family = perturbed(Sd, tiny_sd, "classifier_free")
    for scales in ({"guidance_scale": [5.0, 1.0], "pag_scale": [0.0, 3.0]}, {"guidance_scale": [5.0, 1.0], "pag_scale": 0.0}):
        found, _, calls = compared_alone(family, scales)
        assert calls == [3] if scales["pag_scale"] else [2]
        for picture in range(2):
            own = {name: value[picture] if isinstance(value, list) else value for name, value in scales.items()}
            alone, _, _ = compared_alone(family, own, picture)
            equality.close(found[picture : picture + 1], alone)


def compared_alone(family, scales, picture=None):
    """One call of the wrapped denoiser on two pictures, or on one of them."""
    conditioning = family.reference().encode(equality.PROMPTS, "blurry")
    latent, calls, part = equality.latents().numpy(), [], family.part("unet", "fp32")
    if picture is not None:
        conditioning = {name: array[picture : picture + 1] for name, array in conditioning.items()}
        latent = latent[picture : picture + 1]

    def run(_, pool):
        calls.append(pool["prompt_embeds"].shape[1])
        with torch.no_grad():
            given = [torch.from_numpy(pool[port.name].copy()) for port in part.signature.inputs]
            return {"model_output": part.module(*given).numpy()}

    denoise = BoundDenoiser(run, Draft(family), conditioning, family.guidance.fed(scales))
    return torch.from_numpy(denoise(latent, 500.0)), None, calls


def test_layers_that_a_network_has_not_are_named():
    unet = models.unet(mid_block_type=None)
    with pytest.raises(UnsupportedError, match=r"'mid' names no self-attention of this UNet, which has some in .*down_blocks"):
        perturbing(unet, ["mid"], torch.tensor([True])).__enter__()


def test_what_diffusers_kept_comes_with_the_perturbed_branch_first():
    one, two = torch.arange(6.0), torch.arange(6.0, 12.0)
    found = perturbed_first([one, one, two], 2)
    assert found[0] is found[1]
    assert [each.tolist() for each in found[1:]] == [[4, 5, 0, 1, 2, 3], [10, 11, 6, 7, 8, 9]]
