"""pydantic's errors become plain sentences, each at its place."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from exporter.recipe.messages import sentences, unknown_step


class Inner(BaseModel):
    """How deep it goes.

    More of it.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    depth: int = Field(ge=1, le=9)
    share: float = Field(default=0.5, gt=0, lt=1, allow_inf_nan=False)


class Bare(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: Annotated[str, StringConstraints(min_length=1)] = "x"
    mode: Literal["none", "embedded"] = "none"
    flag: bool = False
    sides: tuple[int, int] = Field(default=(1, 2), description="height and width")
    steps: tuple[int, ...] = Field(default=(1,), min_length=2, max_length=3)
    inner: Inner | None = None
    several: dict[str, Inner] = Field(default_factory=dict)
    rows: tuple[Inner, ...] = ()
    bare: Bare | None = None
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _odd(cls, value):
        if value % 2 == 0:
            raise ValueError(f"{value} is even; take {value + 1}")
        return value


class Needs(BaseModel):
    inner: Inner
    told: int = Field(description="what is told")
    plain: int


def told(model, **content):
    with pytest.raises(ValidationError) as error:
        model.model_validate(content)
    return list(sentences(model, error.value))


@pytest.mark.parametrize(
    ("content", "place", "sentence"),
    [
        ({"name": 3}, ("name",), "must be text, not 3"),
        ({"name": ""}, ("name",), "is empty; give a text, or leave the line out"),
        ({"mode": "embeded"}, ("mode",), "must be 'none' or 'embedded', not 'embeded'"),
        ({"flag": "yes"}, ("flag",), "must be true or false, not 'yes'"),
        ({"sides": 3}, ("sides",), "must be a list, not 3; write [3]"),
        ({"sides": {"a": 1}}, ("sides",), 'must be a list, not {"a": 1}'),
        ({"sides": (1,)}, ("sides",), "has 1 values, [1], and needs more"),
        ({"sides": (1, 2, 3)}, ("sides",), "has more values than the 2 that it takes: [1, 2, 3]"),
        ({"steps": (1,)}, ("steps",), "has 1 values, and needs at least 2"),
        ({"inner": 3}, ("inner",), "must be a mapping, not 3"),
        ({"inner": {"depth": 0}}, ("inner", "depth"), "must be at least 1, not 0"),
        ({"inner": {"depth": 10}}, ("inner", "depth"), "must be at most 9, not 10"),
        ({"inner": {"depth": 1.5}}, ("inner", "depth"), "must be a whole number, not 1.5"),
        ({"inner": {"depth": 1, "share": 0.0}}, ("inner", "share"), "must be more than 0.0, not 0.0"),
        ({"inner": {"depth": 1, "share": 1.0}}, ("inner", "share"), "must be less than 1.0, not 1.0"),
        ({"inner": {"depth": 1, "share": "much"}}, ("inner", "share"), "must be a number, not 'much'"),
        ({"inner": {}}, ("inner", "depth"), "missing"),
        ({"several": {"a": {}}}, ("several", "a", "depth"), "missing"),
        ({"inner": {"depth": 1, "shear": 1}}, ("inner", "shear"), "unknown field; did you mean 'share'?"),
        ({"several": {"a": {"depth": 1, "shear": 1}}}, ("several", "a", "shear"), "unknown field; did you mean 'share'?"),
        ({"rows": ({"depth": 1, "zzz": 1},)}, ("rows", 0, "zzz"), "unknown field; there are: depth, share"),
        ({"share": 0.1}, ("share",), "unknown field here; it is inner.share"),
        ({"bare": {"depth": 1}}, ("bare", "depth"), "unknown field here; it is inner.depth"),
        ({"bare": {"flag": True}}, ("bare", "flag"), "unknown field here; it is flag, at the top"),
        ({"bare": {"a": 1}}, ("bare", "a"), "unknown field; it takes no options"),
        ({"bare": {"|a": 1}}, ("bare", "|a"), "unknown field; it takes no options"),  # begins as a tag of a union does
        ({"odd": 4}, ("odd",), "4 is even; take 5"),
    ],
)
def test_a_problem_is_one_sentence_at_its_place(content, place, sentence):
    assert told(Outer, **content) == [(place, sentence)]


def test_what_is_missing_says_what_to_give():
    assert told(Needs) == [
        (("inner",), "missing; give it: How deep it goes."),
        (("told",), "missing; give it: what is told"),
        (("plain",), "missing"),
    ]


def test_values_that_are_wrong_are_not_counted_as_missing_too():
    assert told(Outer, steps=(1, "x")) == [(("steps", 1), "must be a whole number, not 'x'")]


def test_all_problems_are_told():
    assert [place for place, _ in told(Outer, name=3, flag=4, zzz=5)] == [("name",), ("flag",), ("zzz",)]


def test_a_problem_that_nobody_foresaw_is_told_in_pydantic_s_words():
    class Dated(BaseModel):
        when: Annotated[str, StringConstraints(pattern="^a")]

    assert told(Dated, when="b") == [(("when",), "string should match pattern '^a', not 'b'")]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (("inner", "depth"), None),
        (("several", "anything", "depth"), None),
        (("several", "anything"), None),
        (("rows", 0, "depth"), None),
        (("iner", "depth"), (("iner",), "unknown field; did you mean 'inner'?")),
        (("several", "a", "dept"), (("several", "a", "dept"), "unknown field; did you mean 'depth'?")),
        (("rows", 0, "dept"), (("rows", 0, "dept"), "unknown field; did you mean 'depth'?")),
    ],
)
def test_the_first_step_that_leads_nowhere_is_told(place, found):
    assert unknown_step(Outer, place) == found
