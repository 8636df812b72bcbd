"""A picture set's folder: what is whole stays, what is not is drawn again, and another set is refused."""

import pytest

from engines.errors import UnsupportedError
from engines.picture_set.shards import PictureSet, SetAbout, digest

PROMPTS = [f"number {number}" for number in range(5)]


def about(**changes):
    told = {"model": "m", "backend": None, "prompts": digest(PROMPTS), "count": 5, "shard": 2, "seed": 7, "wishes": {"steps": 2}}
    return SetAbout(**told | changes)


def test_shards_have_prompts_and_seeds_of_their_own(tmp_path):
    made = PictureSet(tmp_path / "set", about(), PROMPTS)
    assert [(each.number, each.first, each.prompts, each.seed) for each in made.shards] == [
        (0, 0, ("number 0", "number 1"), 7),
        (1, 2, ("number 2", "number 3"), 9),
        (2, 4, ("number 4",), 11),
    ]


def test_what_is_kept_is_not_left_to_anybody(tmp_path):
    made = PictureSet(tmp_path, about(), PROMPTS)
    made.keep(made.shards[1], [b"two", b"three"])
    assert sorted(file.name for file in made.pictures.iterdir()) == ["000002.png", "000003.png"]
    again = PictureSet(tmp_path, about(), PROMPTS)
    assert [shard.number for shard in again.left()] == [0, 2]
    (tmp_path / "shards" / "0001").unlink()  # as of a process that was killed before all were there
    assert [shard.number for shard in again.left()] == [0, 1, 2]


@pytest.mark.parametrize("change", [{"model": "n"}, {"seed": 8}, {"wishes": {"steps": 3}}, {"backend": "openvino"}, {"shard": 3}])
def test_another_set_is_refused(tmp_path, change):
    PictureSet(tmp_path, about(), PROMPTS)
    with pytest.raises(UnsupportedError, match=rf"of another set: {next(iter(change))} differ(.|\n)*another folder"):
        PictureSet(tmp_path, about(**change), PROMPTS)


def test_a_file_that_is_none_of_ours_is_told(tmp_path):
    (tmp_path / "set.json").write_text("{}")
    with pytest.raises(UnsupportedError, match="holds something else"):
        PictureSet(tmp_path, about(), PROMPTS)


def test_prompts_are_told_apart_by_their_order():
    assert digest(["a", "b"]) != digest(["b", "a"]) != digest(["a b"])
