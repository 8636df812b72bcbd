"""What a training is asked to do, what it says of itself, and what its trajectories depend on."""

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from engines.errors import UnsupportedError
from exporter.training.options import Classifier, Dataset, ImageLossWeights, Imitated, LossWeights, Options, Played


class Learn(Options):
    pass


class Play(Played):
    pass


def test_a_training_says_what_it_is():
    learn = Learn(data="d", steps=7)
    assert (learn.verb, learn.summary) == ("learn", "learn: 7 steps")
    assert (learn.kind, learn.guides, learn.plays, learn.sees) == ("training", False, False, None)
    play = Play(data="d", steps=7, teacher_steps=9)
    assert (play.guides, play.plays, play.stops) == (True, True, (9,))


def test_a_pass_that_learns_cannot_be_applied_to_the_part_alone():
    with pytest.raises(UnsupportedError, match=r"learn of unet needs a teacher and pictures.*\n.*t2iexport distill"):
        Learn(data="d", steps=1)(SimpleNamespace(name="unet"))


def test_a_config_stays_as_it_is_unless_guidance_is_an_input():
    learn, config = Learn(data="d", steps=1), {"a": 1, "time_cond_proj_dim": None}
    assert learn.config(config) == config
    assert learn.config(config) is not config
    with pytest.raises(UnsupportedError, match="learn: this UNet takes guidance as an input"):
        learn.config({"time_cond_proj_dim": 256})


def test_trajectories_depend_on_what_the_teacher_does_and_on_nothing_else():
    one = Play(data="d", steps=1).played
    for same in ({"steps": 9}, {"learning_rate": 1.0}, {"data": "e"}, {"batch": 1}, {"ema": 0.5}):
        assert Play(**{"data": "d", "steps": 1} | same).played == one, same
    for other in (
        {"guidance": 2.0},
        {"count": 5},
        {"teacher_steps": 5},
        {"play_batch": 5},
        {"seed": 5},
        {"mixed_precision": "bf16"},
    ):
        assert Play(data="d", steps=1, **other).played != one, other


@pytest.mark.parametrize(("features", "weight", "watched"), [("resnet", 1.0, True), (None, 1.0, False), ("resnet", 0.0, False)])
def test_features_are_watched_where_they_count(features, weight, watched):
    assert Imitated(data="d", steps=1, features=features, weights=LossWeights(feature=weight)).watched == watched


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (Learn, {"steps": 0}, "steps"), (Learn, {"batch": 0}, "batch"), (Learn, {"ema": 1.0}, "ema"),
        (Learn, {"empty": 1.1}, "empty"), (Learn, {"learning_rate": 0}, "learning_rate"),
        (Learn, {"schedule": "linear"}, "schedule"),
        (Learn, {"data": ""}, "data"), (Learn, {"speed": 1}, "speed"), (Play, {"empty": 0.1}, "empty"),
        (Play, {"guidance": 0.5}, "guidance"),
    ],
)  # fmt: skip
def test_bounds(kind, options, told):
    with pytest.raises(ValidationError, match=told):
        kind(**{"data": "d", "steps": 1} | options)


def test_data_may_be_a_data_set():
    learn = Learn(data={"dataset": "somebody/pictures", "caption": "prompt"}, steps=1)
    assert learn.data == Dataset(dataset="somebody/pictures", caption="prompt")
    assert (learn.data.split, learn.data.image) == ("train", "image")
    with pytest.raises(ValidationError, match="temperature"):
        Classifier(source="x", temperature=0)


def test_some_difference_of_pictures_counts():
    assert ImageLossWeights(absolute=0, edges=0.5).edges == 0.5
    with pytest.raises(ValidationError, match="every weight is zero, so there is nothing to learn"):
        ImageLossWeights(absolute=0)
