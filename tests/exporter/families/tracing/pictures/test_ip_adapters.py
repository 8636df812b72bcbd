"""A pipeline with an IP-Adapter: its scale is an argument of the call, its picture a part that runs once."""

import inspect

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import RecipeError, UnsupportedError
from exporter.families.tracing.following.origins import STEP, Origins, marked, origins
from exporter.families.tracing.pictures import image_arguments, ip_adapters
from exporter.families.tracing.pipelines import scales, siblings
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import family
from tools.coverage import prompted, unets

_TEXT = """
model: {source: %%s, ip_adapter: {source: %s, subfolder: models}}
sampler: {steps: [2], guidance: %%s}
shapes: {height: [32, 32, 32], width: [32, 32, 48], batch: [1, 1, 2]}
%s
"""


@pytest.fixture(scope="module", params=["ip-adapter", "ip-adapter-plus"])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    made = prompted.MADE[request.param]()
    made.save_pretrained(folder / "model")
    prompted.write_ip_adapter(folder / "adapter", prompted.ADAPTED[request.param](made.unet))
    return folder


def built(place, more=""):
    return family(place / "model", "classifier_free", text=_TEXT % (place / "adapter", more))


def test_the_call_takes_a_scale_and_counts_by_it(place):
    made = unets.stable_diffusion()
    kind = ip_adapters.adapted(type(made))
    assert ip_adapters.adapted(type(made)) is kind
    assert (kind.__name__, ip_adapters.plain(kind)) == ("StableDiffusionPipeline", type(made))
    assert inspect.signature(inspect.unwrap(kind.__call__)).parameters["ip_adapter_scale"].default == 1.0
    assert ip_adapters.has_adapter(kind)
    assert not ip_adapters.has_adapter(made)
    assert scales.other_scales(siblings.over(kind, made)) == {"ip_adapter_scale": 1.0}
    assert image_arguments.arguments(kind) == {"ip_adapter_image": "ip_adapter_image"}
    assert ip_adapters.like(kind, diffusers.StableDiffusionImg2ImgPipeline) in siblings.starting(kind).values()
    made.load_ip_adapter(str(place / "adapter"), subfolder="models", weight_name="ip-adapter.safetensors")
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    asked = {"prompt": "a", "ip_adapter_image": picture, "num_inference_steps": 1, "output_type": "np"}
    own = siblings.over(kind, made)

    def drawn(pipeline, **more):
        return pipeline(**asked, **more, generator=torch.Generator().manual_seed(1)).images

    for scale in (1.0, 0.3):
        made.set_ip_adapter_scale(scale)
        wanted = drawn(made)
        assert np.abs(drawn(own, ip_adapter_scale=scale) - wanted).max() < 1e-6
    assert np.abs(drawn(own, ip_adapter_scale=0.9) - wanted).max() > 1e-4, "it counts for nothing"
    assert not made.unet.encoder_hid_proj._forward_hooks, "nothing stays behind"


def test_what_the_projection_makes_of_a_picture_meets_the_step_there(place):
    made = unets.stable_diffusion()
    made.load_ip_adapter(str(place / "adapter"), subfolder="models", weight_name="ip-adapter.safetensors")
    states = 16 if "plus" not in place.name else 32
    shown = marked(torch.zeros(1, 1, states) if states == 16 else torch.zeros(1, 1, 17, states), "ip_adapter_image")
    crossed = []

    def crossing(number, tensor):
        crossed.append((number, origins(tensor)))
        return tensor

    with ip_adapters._reading(made.unet, 1.0), Origins(crossing):
        (found,) = made.unet.encoder_hid_proj([shown])
    assert crossed == [(0, {"ip_adapter_image"})]
    assert STEP in origins(found)


def test_a_pipeline_that_takes_no_adapter_is_refused():
    with pytest.raises(UnsupportedError, match=r"DDPMPipeline takes no IP-Adapter"):
        ip_adapters.adapted(diffusers.DDPMPipeline)


def test_the_bundle_takes_a_picture_and_how_much_it_counts(place):
    found = built(place)
    assert found.roles == {"text_encoder": "text", "condition": "condition", "unet": "denoiser", "vae_decoder": "decoder"}
    (entry,) = found.inputs.values()
    assert list(found.inputs) == ["ip_adapter_image"] == list(found.shared_inputs)
    assert entry.shape == ("batch", 32, 32, 3)
    assert entry.preprocessing.resize == "crop"
    scales_of = {scale.name: scale.default for scale in found.guidance.scales}
    assert scales_of == {"guidance_scale": 4.0, "ip_adapter_scale": 1.0}
    (crossing,) = found.conditions.crossings
    assert crossing.name == "ip_adapter_image_condition"
    assert crossing.port_shape == ("batch", 2, 1, 6 if "plus" in place.name else 4, 32)
    assert found.components("condition") == ("image_encoder", "unet")
    assert found.signature("condition").dims["batch"].max == 1
    assert found.signature("unet").dims["batch"].max == 2
    assert not [note for note in found.notes if "image_encoder" in note or "feature_extractor" in note]


def test_a_pass_that_makes_another_unet_is_refused(place):
    more = "components: {unet: {passes: [{prune: {preset: bk-sdm-tiny}}]}}"
    with pytest.raises(
        RecipeError, match=r"components\.unet\.passes: prune makes another UNet, and an IP-Adapter belongs to one"
    ):
        built(place, more)


@pytest.mark.long
def test_parts_answer_as_diffusers(place):
    found = built(place, "components: {vae_encoder: {}}")  # pictures to start from, too
    assert {name: ip_adapters.plain(start.kind).__name__ for name, start in found.starts.items()} == {
        "image": "StableDiffusionImg2ImgPipeline",
        "mask": "StableDiffusionInpaintPipeline",
    }
    recording = record(found, found.recipe)
    assert any(len(run.setting.prompts) == 2 for run in recording.runs)
    assert recording.runs[-1].setting.masked
    for part in found.roles:
        for case in measure(found.part(part, "fp32"), recording.cases[part]):
            for port, wanted in case.source.items():
                assert wanted.std() > 1e-4, "a dead network proves nothing"
                assert np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted) < equality.ROUNDING, case.label
