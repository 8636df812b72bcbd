"""Pictures that recordings feed."""

import numpy as np

from engines.inputs import Input, Preprocessing
from exporter.reference.probe_pictures import probe_pictures

PIXELS = ("batch", "8*latent_height", "8*latent_width")
SIDES = {"latent_height": 4, "latent_width": 6}


def test_every_picture_is_another_and_of_the_size_of_its_input():
    inputs = {
        "image": Input(kind="image", shape=(*PIXELS, 3), preprocessing=Preprocessing()),
        "depth": Input(kind="image", shape=("batch", 10, 10, 1), preprocessing=Preprocessing()),
        "mask": Input(kind="mask", shape=(*PIXELS, 1), preprocessing=Preprocessing(binarize=True)),
        "label": Input(kind="integer", shape=("batch",), default=0),
    }
    made = probe_pictures(inputs, 2, SIDES, np.random.default_rng(0))
    assert {name: (array.shape, array.dtype) for name, array in made.items()} == {
        "image": ((2, 32, 48, 3), np.uint8), "depth": ((2, 10, 10, 1), np.uint8), "mask": ((2, 32, 48, 1), np.uint8),
        "label": ((2,), np.int64),
    }  # fmt: skip
    asked = {"class": Input(kind="integer", shape=("batch",), minimum=2, maximum=4)}
    numbers = probe_pictures(asked, 50, SIDES, np.random.default_rng(0))["class"]
    assert (numbers.dtype, {*numbers.tolist()}) == (np.int64, {2, 3, 4})
    level = {"level": Input(kind="integer", shape=("batch",), minimum=0, maximum=350, default=20)}
    assert len({*probe_pictures(level, 9, SIDES, np.random.default_rng(0))["level"].tolist()}) == 1  # diffusers takes one a call
    for array in (made[name] for name in ("image", "depth", "mask")):
        assert array[0].std() > 10
        assert (array[0] != array[1]).any()
    assert [np.unique(mask).tolist() for mask in made["mask"]] == [[0, 255], [0, 255]]
    assert made["mask"].mean() == 127.5
    again = probe_pictures(inputs, 2, SIDES, np.random.default_rng(0))
    assert all((array == again[name]).all() for name, array in made.items())
