"""What a caller may write for a LoRA, and how its scales are spread over the images."""

from pathlib import Path

import pytest

from engines.errors import UnsupportedError
from engines.lora.choice import LoraChoice, chosen
from engines.request import spread


def of(*wishes, prompts=2, each=1):
    return chosen(wishes, lambda name, value: spread(name, value, prompts, each))


@pytest.mark.parametrize(
    ("wish", "scales"),
    [
        ("a.safetensors", (1.0, 1.0)),
        ("a.safetensors:0.8", (0.8, 0.8)),
        ("a.safetensors:0.8,-1", (0.8, -1.0)),
        (Path("a.safetensors"), (1.0, 1.0)),
        (("a.safetensors", 0.5), (0.5, 0.5)),
        ((Path("a.safetensors"), [0.5, 0]), (0.5, 0.0)),
    ],
    ids=str,
)
def test_each_way_of_writing_it(wish, scales):
    assert of(wish) == [LoraChoice(Path("a.safetensors"), scales)]


def test_one_scale_a_prompt_is_for_all_its_images():
    assert of("a:1,2", each=2)[0].scales == (1.0, 1.0, 2.0, 2.0)


def test_a_colon_in_a_name_is_of_the_name_where_there_is_such_a_file(tmp_path):
    (tmp_path / "a:2").write_bytes(b"")
    assert of(f"{tmp_path}/a:2") == [LoraChoice(tmp_path / "a:2", (1.0, 1.0))]
    assert of(f"{tmp_path}/a:2:0.5") == [LoraChoice(tmp_path / "a:2", (0.5, 0.5))]


@pytest.mark.parametrize("scale", ["nan", "inf", "-inf"])
def test_a_scale_that_is_not_finite_is_refused(scale):
    for wish in (f"a:{scale}", ("a", float(scale)), ("a", [1.0, float(scale)])):
        with pytest.raises(UnsupportedError, match="is not a number to multiply by"):
            of(wish)


def test_what_is_no_scale_too_many_of_them_and_a_file_twice_are_refused():
    with pytest.raises(UnsupportedError, match="'strong' is no scale"):
        of("a:strong")
    with pytest.raises(UnsupportedError, match="not a number"):
        of(("a", "1"))
    with pytest.raises(UnsupportedError, match="3 scale of as for 2 prompts of 1 pictures"):
        of("a:1,2,3")
    with pytest.raises(UnsupportedError, match="named twice"):
        of("a:1", "a:2")
    assert of() == []
