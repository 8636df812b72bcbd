"""Arguments that guide a pipeline, and further scales that its call takes."""

import inspect

import pytest

from exporter.families.tracing.pipelines.scales import open_scales, other_scales, steering


class Guided:
    def __call__(
        self, prompt, guidance_scale=3.5, true_cfg_scale=1.0, pag_scale=3.0, eta_scale=None, adapter_conditioning_scale=0.0
    ):
        """Draw."""


class Plain:
    def __call__(self, prompt, guidance_scale=7.5):
        """Draw."""


@pytest.mark.parametrize(
    ("mode", "scale", "asked"),
    [
        ("embedded", 3.5, {"true_cfg_scale": 1.0, "guidance_scale": 3.5}),
        ("none", 1.0, {"true_cfg_scale": 1.0, "guidance_scale": 1.0}),
        ("classifier_free", 2.0, {"true_cfg_scale": 2.0}),
    ],
)
def test_of_two_scales_the_networks_own_is_the_embedded_one(mode, scale, asked):
    assert steering(Guided(), mode, scale) == asked


def test_of_one_scale_the_mode_decides_what_it_is():
    assert steering(Plain(), "classifier_free", 2.0) == {"guidance_scale": 2.0}
    assert steering(Plain(), "none", 1.0) == {"guidance_scale": 1.0}


def test_of_two_stages_the_second_s_guides():
    class Staged:
        def __call__(self, prompt, prior_guidance_scale=4.0, decoder_guidance_scale=0.0):
            """Draw."""

    assert steering(Staged(), "classifier_free", 2.0) == {"decoder_guidance_scale": 2.0}
    assert other_scales(Staged()) == {}


def test_further_scales_are_numbers_and_off_at_nothing():
    found = other_scales(Guided())
    assert found == {"pag_scale": 3.0, "adapter_conditioning_scale": 0.0}
    assert found.keys() < inspect.signature(Guided.__call__).parameters.keys()
    assert {name: scale > 1 for name, scale in open_scales(found).items()} == {
        "pag_scale": True,
        "adapter_conditioning_scale": False,
    }
    assert other_scales(Plain()) == {}
