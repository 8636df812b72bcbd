"""A scale means what it means in diffusers: at and below 1, classifier-free guidance is off."""

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.guidance import Guidance, Scale
from engines.pipeline import Pipeline
from tests.engines import small


def one(pipeline, **wishes):
    return np.asarray(pipeline.generate("a red square", **wishes)[0])


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, -3.0])
def test_at_and_below_1_the_prompt_alone(pipeline, scale):
    off = one(pipeline, guidance_scale=scale)
    np.testing.assert_array_equal(off, one(pipeline, guidance_scale=1.0))
    np.testing.assert_array_equal(off, one(pipeline, guidance_scale=scale, negative_prompt="the blue sea"))
    assert (off != one(pipeline, guidance_scale=1.5)).any()
    assert (off != np.asarray(pipeline.generate("the blue sea", guidance_scale=scale)[0])).any()
    assert pipeline.generate("a", guidance_scale=scale)[0].info["guidance_scale"] == repr(scale)


def test_of_a_whole_pipeline_too(tmp_path):
    bundle, seen = small.make(tmp_path / "fused", **small.fused()), []

    def whole(inputs):
        seen.extend(inputs["guidance_scale"].tolist())
        count, _, _, height, width = inputs["noise"].shape
        return {"image": np.zeros((count, height * small.FACTOR, width * small.FACTOR, 3), np.float32)}

    Pipeline(bundle, {"pipeline_2": whole}).generate(["a", "red"], guidance_scale=[0.0, 4.0])
    assert seen == [1.0, 4.0]


def test_an_embedded_scale_is_what_it_is(tmp_path):
    bundle, seen = small.make(tmp_path / "b", mode="embedded"), []
    networks = small.networks(bundle)
    denoise = networks["unet"]
    networks["unet"] = lambda inputs: seen.extend(inputs["guidance_scale"].tolist()) or denoise(inputs)
    one(Pipeline(bundle, networks), guidance_scale=0.25)
    assert set(seen) == {0.25}


def test_a_scale_for_each_picture(pipeline):
    scales = [1.5, 3.0, 0.5]
    made = pipeline.generate(["a red square"] * 3, seed=4, guidance_scale=scales)
    for index, scale in enumerate(scales):
        np.testing.assert_array_equal(np.asarray(made[index]), one(pipeline, seed=4 + index, guidance_scale=scale))


def test_each_scale_has_a_value_that_is_off():
    guidance = Guidance(
        mode="classifier_free",
        scales=(Scale(name="guidance_scale", default=7.0, off=1.0), Scale(name="pag_scale", default=3.0, off=0.0)),
    )
    fed = guidance.fed({"guidance_scale": [0.0, 2.0], "pag_scale": -1.0})
    assert {name: array.tolist() for name, array in fed.items()} == {"guidance_scale": [1.0, 2.0], "pag_scale": 0.0}
    assert {str(array.dtype) for array in fed.values()} == {"float32"}
    assert guidance.fed(None)["pag_scale"] == 3.0
    with pytest.raises(UnsupportedError, match="this bundle has no pag_scal; did you mean 'pag_scale'"):
        guidance.fed({"pag_scal": 1.0})
    with pytest.raises(UnsupportedError, match="pag scale x is not a number"):
        guidance.fed({"pag_scale": "x"})


def test_a_scale_that_follows_is_off_where_the_usual_one_is():
    follows = Scale(name="image_guidance_scale", default=1.5, off=1.0, follows=True)
    guidance = Guidance(mode="classifier_free", scales=(Scale(name="guidance_scale", default=7.0, off=1.0), follows))
    fed = guidance.fed({"guidance_scale": [0.5, 2.0], "image_guidance_scale": [1.8, 1.8]})
    assert fed["image_guidance_scale"].tolist() == pytest.approx([1.0, 1.8])
    assert fed["image_guidance_scale"].dtype == np.float32
    assert guidance.taken(guidance.fed(1.0)) == (1,)
    assert guidance.fed(None)["image_guidance_scale"] == 1.5
    for wrong in ({"name": "guidance_scale", "off": 1.0}, {"name": "x", "off": None}):
        with pytest.raises(ValueError, match="follows the usual scale, so it must be another"):
            Scale(default=1.0, follows=True, **wrong)


def test_a_share_of_the_guidance_of_scales_that_can_be_off():
    scales = Scale(name="guidance_scale", default=3.0, off=1.0), Scale(name="other", default=2.0)
    guidance = Guidance(mode="classifier_free", scales=scales)
    fed = guidance.fed(None)
    half = {name: float(value) for name, value in guidance.at(fed, 0.5).items()}
    assert half == {"guidance_scale": 2.0, "other": 2.0}
    assert guidance.taken(guidance.at(fed, 0.0)) == (0, 1)  # the other one still counts
    usual = Guidance.of("classifier_free", 3.0)
    assert usual.taken(usual.at(usual.fed([3.0, 7.0]), 0.0)) == (1,)
    assert usual.taken(usual.fed([1.0, 7.0])) == (0, 1)
    assert Guidance.of("embedded", 1.0).taken(Guidance.of("embedded", 1.0).fed(None)) == (0,)


PAG = Scale(name="pag_scale", default=3.0, off=0.0, perturbs=True)


@pytest.mark.parametrize(
    ("scales", "taken"),
    [
        ({}, (1, 0, 1)),
        ({"guidance_scale": 1.0}, (1, 1)),
        ({"pag_scale": 0.0}, (0, 1)),
        ({"guidance_scale": 0.5, "pag_scale": -1.0}, (1,)),
        ({"guidance_scale": [1.0, 5.0], "pag_scale": [2.0, 0.0]}, (1, 0, 1)),
    ],
)
def test_a_scale_may_have_a_branch_of_its_own_which_comes_first_and_only_where_it_is_on(scales, taken):
    guidance = Guidance(mode="classifier_free", scales=(*Guidance.of("classifier_free", 5.0).scales, PAG))
    assert guidance.rows == 3
    assert guidance.taken(guidance.fed(scales)) == taken


def test_a_branch_of_its_own_needs_no_other_guidance():
    guidance = Guidance(mode="none", scales=(PAG,))
    assert (guidance.branches, guidance.rows) == (1, 2)
    assert guidance.taken(guidance.fed(None)) == (0, 0)
    assert guidance.taken(guidance.fed({"pag_scale": 0.0})) == (0,)
    with pytest.raises(ValueError, match="can be off"):
        Scale(name="pag_scale", default=3.0, perturbs=True)
