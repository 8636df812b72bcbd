"""Both ways of exporting a model of a hand-written family."""

import pytest

from tools.measure.followed_exports import WAYS, _alone


@pytest.mark.long
def test_both_ways_export_the_same_model():
    by_hand, followed = (_alone("micro-sdxl", way) for way in WAYS)
    assert by_hand.keys() - followed.keys() == {"text_encoder_2"}, "one part reads texts where a pipeline is followed"
    assert {"plan", "unet", "vae_decoder"} <= followed.keys() & by_hand.keys()
    assert all(seconds > 0 for seconds in (*by_hand.values(), *followed.values()))
