"""Pictures that a pipeline prepares by methods of its own: as data, by which the run time does the same."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following.origins import marked
from exporter.families.tracing.pictures import image_arguments, own_preparation


def pipeline(kind="IFInpaintingPipeline", **methods):
    """One of DeepFloyd's, of a network for 32 pixels, without its networks."""
    made = object.__new__(type(kind, (getattr(diffusers, kind),), methods))
    made.__dict__["unet"] = SimpleNamespace(config=SimpleNamespace(sample_size=32))
    return made


def test_a_picture_and_a_mask_have_each_a_method_and_those_of_image_processors_none():
    found = own_preparation.methods(pipeline())
    assert {name: (method, grey) for name, (method, _, grey) in found.items()} == {
        "image": ("preprocess_image", False),
        "mask_image": ("preprocess_mask_image", True),
    }
    assert found["image"][1].mean == found["image"][1].std == (0.5,)
    assert found["mask_image"][1].binarize
    assert list(own_preparation.methods(pipeline("IFImg2ImgPipeline"))) == ["image"]
    assert not own_preparation.methods(object.__new__(diffusers.FluxInpaintPipeline))


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (64, 32)])
def test_they_do_what_a_bundle_does(size):
    own_preparation.refuse_others(pipeline(), *size)


def test_a_size_that_they_change_is_refused_with_the_one_to_write():
    with pytest.raises(UnsupportedError, match=r"makes 32 x 64 px of a picture of 64 x 128 \(height x width\)"):
        own_preparation.refuse_others(pipeline(), 64, 128)


def test_a_method_that_does_something_else_is_refused():
    def preprocess_image(self, image):
        return diffusers.IFImg2ImgPipeline.preprocess_image(self, image) * 0.9

    with pytest.raises(UnsupportedError, match="prepares its image by code of its own, in a way that no bundle has"):
        own_preparation.refuse_others(pipeline(preprocess_image=preprocess_image), 32, 32)


def test_a_picture_in_their_place_comes_prepared_and_is_noted():
    seen, picture = {}, marked(torch.rand(1, 3, 8, 8), "image")
    methods = image_arguments.taking(pipeline(), seen)
    assert methods["preprocess_image"]([picture]) is picture
    assert methods["preprocess_mask_image"](marked(torch.rand(1, 3, 8, 8), "mask")).shape == (1, 1, 8, 8)
    assert [seen[name].grey for name in ("image", "mask")] == [False, True]
