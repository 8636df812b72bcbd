"""A trial gives a bundle and diffusers the same pictures."""

import numpy as np

from engines.inputs import Input, Preprocessing
from tools.coverage import trial

SIZE = {"image": ("batch", 32, 48, 3), "mask": ("batch", 32, 48, 1)}


def entry(kind, resize="stretch"):
    return Input(kind=kind, shape=SIZE[kind], preprocessing=Preprocessing(resize=resize))


def test_pictures_are_larger_than_what_is_drawn_where_the_bundle_resizes_them():
    inputs = {"image": entry("image"), "mask": entry("mask"), "fits": entry("image", "none")}
    made = trial._pictures(inputs, 2, (48, 32), resized=True)
    assert {name: [each.size for each in own] for name, own in made.items()} == {
        "image": [(72, 48)] * 2,
        "mask": [(72, 48)] * 2,
        "fits": [(48, 32)] * 2,
    }
    assert np.unique(np.asarray(made["mask"][0])).tolist() == [0, 255]
    assert not np.array_equal(*map(np.asarray, made["image"]))
    assert {each.size for own in trial._pictures(inputs, 2, (48, 32), resized=False).values() for each in own} == {(48, 32)}


def test_diffusers_is_handed_them_by_its_own_words_and_those_that_are_numbered_as_lists():
    pictures = {"image": ["a", "b"], "image_2": ["c", "d"], "mask": ["e", "f"]}
    assert trial.handed(pictures) == {"image": [["a", "c"], ["b", "d"]], "mask_image": ["e", "f"]}
