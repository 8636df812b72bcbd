"""What users feed becomes arrays with a row for each picture: values by hand, and what a picture then says of it."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.feed import Feed, digest_of
from engines.inputs import Input, Preprocessing, View

CELLS = ("batch", "8*latent_height", "8*latent_width")
HINT = Input(kind="image", shape=(*CELLS, 3), preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)), about="edges")
KEEP = Input(kind="mask", shape=(*CELLS, 1), default=0.75, preprocessing=Preprocessing(resize="stretch", resample="nearest"))
SCALE = Input(kind="number", shape=("batch",), minimum=0, maximum=2, default=1.5)
LABEL = Input(kind="integer", shape=("batch",), minimum=0, maximum=9)


def plain(width, height, colour=(255, 0, 51)):
    return Image.new("RGB", (width, height), colour)


def test_numbers_are_arrays_of_their_type_with_the_default_where_none_is_given():
    made = Feed({"scale": SCALE, "label": LABEL}, {"scale": [0.5, None], "label": [3, 4.0]}).arrays({})
    assert made["scale"].tolist() == [0.5, 1.5]
    assert made["label"].tolist() == [3, 4]
    assert {name: str(array.dtype) for name, array in made.items()} == {"scale": "float32", "label": "int64"}


def test_a_picture_is_prepared_at_its_multiple_of_the_latent():
    made = Feed({"hint": HINT}, {"hint": [plain(24, 16)]}).arrays({"latent_height": 2, "latent_width": 3})["hint"]
    assert (made.shape, made.dtype) == ((1, 16, 24, 3), np.float32)
    np.testing.assert_allclose(made[0, 0, 0], [1, -1, -0.6], atol=1e-6)  # 255, 0 and 51 of 255, from [0, 1] to [-1, 1]


def test_a_default_grey_stands_beside_a_given_mask_of_another_size():
    masks = [None, Image.new("L", (5, 5), 51)]
    made = Feed({"keep": KEEP}, {"keep": masks}).arrays({"latent_height": 1, "latent_width": 2})["keep"]
    assert made.shape == (2, 8, 16, 1)
    np.testing.assert_allclose(np.unique(made[0]), [0.75])
    np.testing.assert_allclose(np.unique(made[1]), [0.2], atol=1e-6)


def test_sides_that_are_numbers_do_not_follow_the_latent():
    fixed = Input(kind="image", shape=("batch", 4, 6, 1), preprocessing=Preprocessing())
    feed = Feed({"image": fixed}, {"image": [Image.new("L", (6, 4), 255)]})
    assert feed.arrays({"latent_height": 7, "latent_width": 9})["image"].shape == (1, 4, 6, 1)
    assert feed.size((8, 8)) is None


def test_a_picture_says_what_is_made_of_it():
    small_one = Input(kind="image", shape=("batch", "2*latent_height", "2*latent_width", 3), preprocessing=Preprocessing())
    feed = Feed({"image": small_one}, {"image": [Image.new("RGB", (6, 4))]})
    assert feed.size((8, 8)) == ((16, 24), (4, 6))


def test_one_picture_for_all_is_prepared_once(monkeypatch):
    from engines.images import preprocess

    fed, seen = preprocess.fed, []
    monkeypatch.setattr(preprocess, "fed", lambda *asked: seen.append(asked) or fed(*asked))
    one, other = plain(8, 8), plain(8, 8, (0, 0, 0))
    made = Feed({"hint": HINT}, {"hint": [one, other, one]}).arrays({"latent_height": 1, "latent_width": 1})["hint"]
    assert len(seen) == 2
    assert [row[0, 0, 0] for row in made] == [1, -1, 1]


@pytest.mark.parametrize(
    ("given", "factors", "size"),
    [
        ([plain(24, 16)], (8, 8), (16, 24)),  # height first
        ([None, plain(24, 16)], (8, 8), (16, 24)),  # the first that is given
        ([plain(24, 16)], (16, 4), (32, 12)),  # pixels of the picture to make, not of the input
        ([plain(20, 16)], (8, 8), (16, 20)),  # two and a half cells: that it fits none is said later
    ],
)
def test_the_size_to_make_is_told_by_the_first_picture(given, factors, size):
    entry = HINT.model_copy(update={"default": 0.0})
    assert Feed({"label": LABEL, "hint": entry}, {"label": [1] * len(given), "hint": given}).size(factors) == (
        size,
        (given[-1].height, given[-1].width),
    )


def test_no_picture_tells_no_size():
    assert Feed({"keep": KEEP, "scale": SCALE}, {"keep": [None], "scale": [1]}).size((8, 8)) is None
    assert Feed({}, {}).size((8, 8)) is None
    assert Feed({}, {}).arrays({}) == {}


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        (HINT, None, "this bundle needs the input x, a picture (edges). Give it: --input x=…"),
        (LABEL, None, "this bundle needs the input x, a whole number. Give it: --input x=…"),
        (HINT, "a.png", "input x is a picture (edges), and a str was given."),
        (HINT, 1.0, "input x is a picture (edges), and a float was given."),
        (SCALE, "1", "input x is a number, and a str was given."),
        (SCALE, False, "input x is a number, and a bool was given."),
        (SCALE, plain(8, 8), "input x is a number, and a Image was given."),
        (SCALE, 2.01, "input x: 2.01 is out of range; it takes at least 0 and at most 2."),
        (SCALE, float("inf"), "input x: inf is out of range; it takes at least 0 and at most 2."),
        (LABEL, 0.5, "input x: 0.5 is no whole number."),
        (LABEL, np.int64(-1), "input x: -1 is out of range; it takes at least 0 and at most 9."),
    ],
)
def test_what_cannot_be_fed_is_said_in_a_sentence(entry, value, message):
    with pytest.raises(UnsupportedError) as caught:
        Feed({"x": entry}, {"x": [value]})
    assert str(caught.value) == message


def test_every_picture_s_value_is_looked_at():
    with pytest.raises(UnsupportedError, match="input scale: 3 is out of range"):
        Feed({"scale": SCALE}, {"scale": [1, 2, 3]})


def test_what_a_picture_says_of_its_inputs():
    picture = plain(2, 1, (1, 2, 3))
    entries = {"hint": HINT, "keep": KEEP, "scale": SCALE, "label": LABEL}
    values = {"hint": [picture] * 2, "keep": [None, None], "scale": [None, np.float32(0.1)], "label": [7, 8]}
    facts = Feed(entries, values).facts
    digest = digest_of(picture)
    assert facts(0) == {"input_hint": digest, "input_scale": "1.5", "input_label": "7"}
    assert facts(1) == {"input_hint": digest, "input_scale": repr(float(np.float32(0.1))), "input_label": "8"}


def test_a_digest_is_of_the_pixels_and_not_of_the_palette():
    picture = plain(4, 4)
    picture.putpixel((1, 1), (0, 0, 0))
    indexed = picture.quantize(2)
    assert indexed.mode == "P"
    assert digest_of(indexed) == digest_of(picture.convert("RGBA"))
    assert digest_of(picture) != digest_of(plain(4, 4))
    assert digest_of(picture) == digest_of(picture.copy())
    assert len(digest_of(picture)) == len(hashlib.sha256().hexdigest())


NOISE = Input(kind="noise", shape=("batch", 2, 3))


def test_noise_that_nobody_gives_is_left_to_the_seed_and_noise_that_is_given_is_told_by_its_numbers():
    left = Feed({"noise": NOISE}, {"noise": [None, None]})
    assert (left.drawn, left.arrays({}), left.facts(0)) == ({"noise": (2, 3)}, {}, {})
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    fed = Feed({"noise": NOISE}, {"noise": [given, given + 1]})
    assert fed.drawn == {}
    assert np.array_equal(fed.arrays({})["noise"], np.stack([given, given + 1]))
    assert fed.facts(0) == {"input_noise": digest_of(given)} != fed.facts(1)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.zeros((2, 3)), r"noise, float32 \[2, 3\] a picture, and float64 \[2, 3\] was given"),
        (np.zeros((3, 2), np.float32), r"and float32 \[3, 2\] was given"),
        (4.0, "and a float was given"),
        (plain(2, 3), "and a Image was given"),
    ],
)
def test_noise_that_does_not_fit_is_refused(value, told):
    with pytest.raises(UnsupportedError, match=told):
        Feed({"noise": NOISE}, {"noise": [value]})


@pytest.mark.parametrize(
    "more",
    [{"shape": ("batch", 3)}, {"shape": ("batch", 2, "latent_height")}, {"default": 0.0}, {"preprocessing": Preprocessing()}],
)
def test_of_noise_nothing_is_said_but_how_many_draws_of_which_shape(more):
    assert Input(kind="noise", shape=("batch", 3, 2, 32)).digested
    with pytest.raises(ValueError, match="noise has the shape"):
        Input(**{"kind": "noise", "shape": ("batch", 3, 2, 32), **more})


def test_a_picture_is_prepared_once_for_every_port_that_takes_it_of_what_was_given():
    small = View(shape=("batch", 2, 3, 3), preprocessing=Preprocessing(resize="stretch", resample="lanczos"))
    both = HINT.model_copy(update={"views": {"hint_seen": small}})
    colours = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    feed = Feed({"hint": both, "scale": SCALE}, {"hint": [Image.fromarray(colours)], "scale": [None]})
    made = feed.arrays({"latent_height": 2, "latent_width": 3})
    assert {name: array.shape for name, array in made.items()} == {
        "hint": (1, 16, 24, 3), "hint_seen": (1, 2, 3, 3), "scale": (1,)
    }  # fmt: skip
    np.testing.assert_allclose(made["hint"][0], colours / 127.5 - 1, atol=1e-6)
    shown = Image.fromarray(colours).resize((3, 2), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(made["hint_seen"][0], np.asarray(shown) / 255, atol=1e-6)
    assert feed.facts(0).keys() == {"input_hint", "input_scale"}  # a view is nothing that anybody gave
