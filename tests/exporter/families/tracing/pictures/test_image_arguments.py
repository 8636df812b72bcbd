"""Which arguments of a pipeline are pictures, and what its image processors do, as the run time does it."""

from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from engines.errors import UnsupportedError
from engines.images.preprocess import fed
from engines.inputs import Input
from exporter.families.tracing.following.origins import marked, origins
from exporter.families.tracing.pictures import image_arguments
from tools.coverage import clip_images, conditioned, prompted


@pytest.fixture(scope="module")
def pipeline():
    return conditioned.MADE["stable-diffusion-controlnet"]()


def test_pictures_are_told_by_their_type_and_masks_have_the_user_s_word(pipeline):
    assert image_arguments.arguments(pipeline) == {"image": "image"}
    inpaint = object.__new__(diffusers.StableDiffusionInpaintPipeline)
    assert image_arguments.arguments(inpaint) == {"image": "image", "mask": "mask_image"}
    assert not image_arguments.arguments(object.__new__(diffusers.StableDiffusionPipeline))


def test_pictures_that_are_annotated_as_tensors_are_told_by_their_names():
    fill = object.__new__(diffusers.FluxFillPipeline)
    assert image_arguments.arguments(fill) == {"image": "image", "mask": "mask_image"}  # and no masked_image_latents
    refiner = object.__new__(diffusers.HunyuanImageRefinerPipeline)
    assert image_arguments.arguments(refiner) == {"image": "image"}  # whose annotation is a name that was never looked up


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(48, 32), (100, 60)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_processor_s_work_is_data_by_which_the_run_time_does_the_same(grey, size, mode):
    options = {"do_normalize": False, "do_binarize": True, "do_convert_grayscale": True} if grey else {"do_convert_rgb": True}
    real, seen = VaeImageProcessor(vae_scale_factor=8, **options), {}
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(levels).convert(mode)
    pipeline = type("Some", (), {})()
    pipeline.image_processor = real
    asked = marked(torch.zeros(1, 3, 32, 48), "image")
    given = image_arguments.taking(pipeline, seen)["image_processor"].preprocess([asked], height=32, width=48)
    assert given.shape == (1, 1 if grey else 3, 32, 48)
    about = seen["image"]
    shape = ("batch", 32, 48, 1 if grey else 3)
    entry = Input(kind="mask" if grey else "image", shape=shape, preprocessing=about.preprocessing)
    made = fed("image", entry, image, 32, 48)
    wanted = real.preprocess(image, height=32, width=48)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(made, wanted)


def test_a_picture_in_a_pipeline_s_hands_is_seen_by_image_processors_alone(pipeline):
    content = marked(torch.zeros(1, 3, 8, 16), "image")
    shown, seen = image_arguments.Shown(content), {}
    assert isinstance(shown, Image.Image)
    assert (shown.size, shown.width, shown.height) == ((16, 8), 16, 8)
    assert image_arguments.taking(pipeline, seen)["image_processor"].preprocess([shown], height=8, width=16) is content
    assert list(seen) == ["image"]
    for look in (np.asarray, lambda image: image.resize((4, 4)), lambda image: image.convert("L"), lambda image: image.copy()):
        with pytest.raises(image_arguments.Unprepared):
            look(shown)


def test_a_pipeline_of_several_networks_takes_a_list_of_pictures():
    both = conditioned.MADE["stable-diffusion-controlnets"]()
    assert image_arguments.count(both) == 2
    named = {"image": "control_image", "mask": "mask_image"}
    assert image_arguments.numbered(named, {"control_image": 2}) == {
        "image": "control_image",
        "image_2": "control_image",
        "mask": "mask_image",
    }
    shown = image_arguments.Shown(marked(torch.zeros(1, 3, 8, 16), "image"))
    asked = []

    def survey(hand, lists):
        asked.append((hand, dict(lists)))
        if not lists:
            shown[0]  # which takes the picture for a list
        if hand is image_arguments.Shown:
            shown.resize((4, 4))
        return "found"

    assert image_arguments.handed(both, survey) == "found"
    assert asked == [
        (image_arguments.Shown, {}),
        (image_arguments.Shown, {"image": 2}),
        (image_arguments.as_numbers, {"image": 2}),
    ]


def test_how_many_pictures_a_list_has_must_be_known(pipeline):
    with pytest.raises(UnsupportedError, match="several pictures at once, and nothing says how many"):
        image_arguments.count(pipeline)


def test_what_cannot_be_data_is_refused(pipeline):
    stand_in, seen = image_arguments.taking(pipeline, {})["image_processor"], {}
    with pytest.raises(UnsupportedError, match="cut out by 'fill'"):
        stand_in.preprocess(marked(torch.zeros(1, 3, 8, 8), "image"), resize_mode="fill")
    with pytest.raises(UnsupportedError, match="a NoneType is prepared as a picture"):
        stand_in.preprocess(None)
    both = image_arguments.taking(pipeline, seen)
    both["image_processor"].preprocess(marked(torch.zeros(1, 3, 8, 8), "image"))
    with pytest.raises(UnsupportedError, match="prepares its picture image in two ways"):
        both["control_image_processor"].preprocess(marked(torch.zeros(1, 3, 8, 8), "image"))


def test_real_processors_tell_what_they_were_given(pipeline):
    noted = []

    def note(image, made):
        noted.append((image, made.shape))
        return marked(made, "image")

    picture = Image.new("RGB", (16, 16))
    made = image_arguments.noting(pipeline, note)["image_processor"].preprocess([picture], height=8, width=8)
    assert noted == [([picture], (1, 3, 8, 8))]
    assert origins(made) == {"image"}


def test_a_picture_in_a_size_of_its_own_is_not_resized_to_what_is_drawn(pipeline):
    """As FLUX.1 Kontext has its own: the picture comes in the right size, and the bundle takes no other."""
    content = marked(torch.zeros(1, 3, 8, 16), "image")
    shown, seen = image_arguments.Shown(content), {}
    taking = image_arguments.taking(pipeline, seen)["image_processor"]
    assert taking.resize(shown, 8, 16) is shown
    assert taking.preprocess(shown, 8, 16) is content
    cut = marked(torch.zeros(1, 3, 8, 16), "other")
    assert taking.preprocess(image_arguments.Shown(cut), 8, 16, resize_mode="crop") is cut
    assert [seen[name].preprocessing.resize for name in ("image", "other")] == ["none", "none"]
    real = Image.new("RGB", (16, 8))
    noting = image_arguments.noting(pipeline, lambda _, made: made)["image_processor"]
    assert noting.resize(real, 16, 32).size == (32, 16)
    pile = image_arguments.Shown([real])
    assert noting.resize(pile, 16, 32) is pile
    told = []
    noting = image_arguments.noting(pipeline, lambda _, made: made, lambda *each: told.append(each))["image_processor"]
    assert noting.resize(pile, 8, 16) is pile
    assert [each.size for each in noting.resize(pile, 16, 32).content] == [(32, 16)]
    assert [(given, made[0].size) for given, made in told] == [([real], (32, 16))]
    assert noting.preprocess(pile, 8, 16).shape == (1, 3, 8, 16)


def test_a_pipeline_that_draws_as_many_as_it_is_shown_is_handed_numbers_that_are_prepared():
    made, asked = prompted.image_variation(), []
    assert image_arguments.counted(made)
    assert not image_arguments.counted(conditioned.MADE["instruct-pix2pix"]())
    about = image_arguments.Picture(grey=False, preprocessing=image_arguments.PLAIN.preprocessing, sides=(32, 32))
    found = SimpleNamespace(pictures={"image": "image"}, prepared={"image": about}, shared=())

    def survey(hand, lists, prepared=None):
        asked.append((hand, lists, prepared))
        return found

    assert image_arguments.handed(made, survey) is found
    assert asked == [(image_arguments.Shown, {}, None), (image_arguments.as_numbers, {}, {"image": about})]
    found.shared = ("image",)  # of which one call takes one for all prompts, which a picture of PIL's then is
    assert image_arguments.handed(made, survey) is found
    assert len(asked) == 3


def test_what_a_network_of_transformers_is_shown_has_its_own_size():
    seen = {}
    extract = image_arguments.taking(prompted.image_variation(), seen)["feature_extractor"]
    drawn = image_arguments.Shown(marked(torch.zeros(1, 3, 48, 64), "image"))
    given = extract(images=drawn, return_tensors="pt").pixel_values
    assert given.shape == (1, 3, clip_images.SIDE, clip_images.SIDE)
    assert origins(given) == {"image"}
    assert seen["image"].sides == (clip_images.SIDE, clip_images.SIDE)
    prepared = marked(torch.ones(2, 3, clip_images.SIDE, clip_images.SIDE), "image")
    assert extract(prepared).pixel_values is prepared


def test_several_pictures_of_one_argument_are_its_list():
    words = {"image": "image", "image_2": "image", "mask": "mask_image"}
    found = image_arguments.by_argument({"image": 1, "image_2": 2, "mask": 3}, words, {"image"})
    assert found == {"image": [1, 2], "mask_image": 3}
