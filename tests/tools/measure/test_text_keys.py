"""Keys and values of the text, counted as the layers multiply them, and timed where they are called."""

import torch

from tests.exporter import models
from tools.measure import text_keys


def test_their_multiply_adds_are_counted_among_all():
    with torch.device("meta"):
        unet = models.unet()
    whole, keys = text_keys.counted(unet, 64)
    layers = text_keys.projections(unet)
    assert keys == sum(77 * layer.in_features * layer.out_features for layer in layers)
    assert 0 < keys < whole


def test_every_call_of_them_is_timed_and_no_other():
    unet = models.unet()
    layers = text_keys.projections(unet)
    with torch.no_grad(), text_keys.timed(layers) as spent:
        unet(**text_keys.call(unet, 64, "cpu"))
    assert len(spent) == len(layers)
    unet(**text_keys.call(unet, 64, "cpu"))
    assert len(spent) == len(layers)
