"""Lists: one for all, one a prompt, one a picture."""

import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.request import Request, seeds, spread
from tests.engines import conditioned


def test_one_for_all_one_a_prompt_or_one_a_picture():
    assert spread("x", 1, 2, 2) == [1, 1, 1, 1]
    assert spread("x", [1], 2, 2) == [1, 1, 1, 1]
    assert spread("x", (1, 2), 2, 2) == [1, 1, 2, 2]
    assert spread("x", [1, 2, 3, 4], 2, 2) == [1, 2, 3, 4]
    assert spread("x", "text", 1, 3) == ["text"] * 3
    for wrong in ([], [1, 2, 3], [1] * 5):
        with pytest.raises(UnsupportedError, match=rf"{len(wrong)} xs for 2 prompts of 2 pictures each"):
            spread("x", wrong, 2, 2)


def test_seeds_count_on():
    assert seeds(5, 2, 2) == [5, 6, 7, 8]
    assert seeds([5], 2, 2) == [5, 6, 7, 8]
    assert seeds([5, 50], 2, 2) == [5, 6, 50, 51]
    assert seeds([4, 3, 2, 1], 2, 2) == [4, 3, 2, 1]
    assert seeds([2**64 - 1, 0], 2, 1) == [2**64 - 1, 0]


@pytest.mark.parametrize("wrong", [-2, 2**64 - 1, 2**64, [-2, 1], [1, 2**64], [2**64 - 1, 0]])
def test_a_seed_out_of_range(wrong):
    with pytest.raises(UnsupportedError, match=r"Use 0 to \d+, or -1 for a random one"):
        seeds(wrong, 2, 2 if wrong == [2**64 - 1, 0] else 1)


def test_a_random_seed_is_said(pipeline):
    found = {tuple(seeds(-1, 2, 1)) for _ in range(5)}
    assert len(found) > 1
    assert all(0 <= first < 2**32 and second == first + 1 for first, second in found)
    one, other, fixed = (made.info["seed"] for made in pipeline.generate(["a"] * 3, seed=[-1, -1, 7]))
    assert len({one, other, "7"}) == 3
    assert fixed == "7"
    (made,) = pipeline.generate("a", seed=-1)
    assert made.tobytes() == pipeline.generate("a", seed=int(made.info["seed"]))[0].tobytes()


def test_negative_prompts_of_each(pipeline):
    made = pipeline.generate(["a red square"] * 2, negative_prompt=["sea", ""], seed=3)
    assert [picture.info.get("negative_prompt") for picture in made] == ["sea", None]
    (alone,) = pipeline.generate("a red square", negative_prompt="sea", seed=3)
    assert made[0].tobytes() == alone.tobytes()


def test_pictures_of_each_prompt_come_one_after_the_other(pipeline):
    made = pipeline.generate(["a", "red"], images_per_prompt=2, seed=3)
    assert [(picture.info["prompt"], picture.info["seed"]) for picture in made] == [
        ("a", "3"),
        ("a", "4"),
        ("red", "5"),
        ("red", "6"),
    ]
    assert made[3].info["batch"] == "4 of 4"


@pytest.mark.parametrize("name", ["strength", "mask"])
def test_what_says_how_an_image_changes_is_refused_where_the_image_is_a_condition(pipeline, name):
    manifest = pipeline.bundle.manifest.model_copy(update={"inputs": {"image": conditioned.INPUTS["hint"]}})
    given = {"negative_prompt": "", "seed": 0, "generator": None, "inputs": {}, "image": Image.new("RGB", (8, 8))}
    assert Request.of(manifest, "a", 1, **given).start["image"] is None
    with pytest.raises(UnsupportedError, match=f"image is a condition, and nothing starts from it. Leave {name} out"):
        Request.of(manifest, "a", 1, **given, **{name: 0.5})
