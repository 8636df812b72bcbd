"""YAML as plain data that knows its lines, and overrides that know their own."""

import sys

import pytest

from engines.errors import MissingDependency
from exporter.recipe.yaml_source import Document, brief, dotted, one_form

TEXT = """\
# a comment
model:
  source: x
steps: [1, 2,
  3]
deep:
  - a: 1
  - b:
      c: no
"""


def read(text):
    document = Document(text, "x.yaml")
    assert document.problems == []
    return document.data


@pytest.mark.parametrize(
    ("place", "text"),
    [((), ""), (("a",), "a"), (("a", "b", 0, "c"), "a.b[0].c"), (("a", 1, 2), "a[1][2]"), ((0,), "[0]")],
)
def test_a_place_is_written_as_a_path(place, text):
    assert dotted(place) == text


def test_a_value_is_cut_to_a_few_words():
    assert brief("x") == "'x'"
    assert brief([1, None, True]) == "[1, null, true]"
    assert brief("y" * 58) == f"'{'y' * 58}'"
    assert brief("y" * 59) == f"'{'y' * 56}…"
    assert brief({1}) == '"{1}"'


def test_scalars_are_those_of_yaml_1_2():
    text = "{a: no, b: 012, c: 1e3, d: ~, e: true, f: '1', g: 2001-01-01, h: 0x1f, i: -1.5, j: }"
    right = {"a": "no", "b": 12, "c": 1e3, "d": None, "e": True, "f": "1", "g": "2001-01-01", "h": 31, "i": -1.5, "j": None}
    assert read(text) == right
    assert read("") == read("# nothing") == {}


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ((), 2), (("model",), 2), (("model", "source"), 3), (("steps", 0), 4), (("steps", 2), 5), (("steps", 9), 4),
        (("deep", 1, "b", "c"), 9), (("deep", 1, "b", "d"), 8), (("model", "seed"), 2), (("elsewhere",), 2),
    ],
)  # fmt: skip
def test_every_place_has_its_line_or_the_nearest_above(place, line):
    document = Document(TEXT, "x.yaml")
    document._lines[()] = 2
    assert document.where(place) == f"x.yaml:{line}"
    assert document.problem(place, "is odd") == f"x.yaml:{line}  {dotted(place)}{': ' if place else ''}is odd"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2", "x.yaml:1  a: stands twice, here and on line 2; keep one"),
        ("1: 2", "x.yaml:1  1: cannot be a key; keys are words, quoted where they look like a number"),
        ("[1]: 2", "x.yaml:1  a list or mapping: cannot be a key; keys are words, quoted where they look like a number"),
        ("b:\n  a: &x 1", "x.yaml:2  b.a: the anchor &x is not part of a recipe; write the value where it is used"),
        ("a: !mine 1", "x.yaml:1  a: the tag !mine is not part of a recipe; write a plain value"),
        ("a:\n- .inf", "x.yaml:2  a[0]: .inf is not a number that a recipe can hold"),
        ("b: 1\na: {", "x.yaml:2  is not YAML: while parsing a flow node: expected the node content, but found '<stream end>'"),
    ],
)
def test_what_a_recipe_has_no_use_for(text, told):
    assert Document(text, "x.yaml").problems == [told]


def test_problems_are_told_once_in_the_order_of_the_file():
    document = Document("a: 1\nb: 2\nc: 3\n", "x.yaml")
    for place in (("c",), ("a",), ("c",)):
        document.report(place, "is odd")
    document.override("b=4")
    document.report(("b",), "is wrong")
    assert document.problems == ["--set b=4:  b: is wrong", "x.yaml:1  a: is odd", "x.yaml:3  c: is odd"]


def test_overrides_change_lists_and_make_mappings():
    document = Document(TEXT, "x.yaml")
    for assignment in ("steps[1]=7", "new.deep.er={a: [1]}", "deep[0].a=x", "model.source=null", "model.source.name=y"):
        document.override(assignment)
    assert document.problems == []
    assert document.data == {
        "model": {"source": {"name": "y"}}, "steps": [1, 7, 3], "deep": [{"a": "x"}, {"b": {"c": "no"}}],
        "new": {"deep": {"er": {"a": [1]}}},
    }  # fmt: skip
    assert document.where(("new", "deep", "er", "a", 0)) == "--set new.deep.er={a: [1]}:"
    assert document.where(("steps", 2)) == "x.yaml:5"
    document.override("new.deep={}")
    assert document.where(("new", "deep", "er")) == "--set new.deep={}:", "what stood there is gone, and who put it"


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("model.source[0]=1", "--set model.source[0]=1:  model.source is not a list"),
        ("steps[3]=1", "--set steps[3]=1:  steps has 3 entries, counted from [0]"),
        ("[0]=1", "--set [0]=1:  must read path.to.field=value, such as sampler.steps=[8]"),
        ("steps=&a 1", "--set steps=&a 1:  its value the anchor &a is not part of a recipe; write the value where it is used"),
    ],
)
def test_an_override_that_cannot_be(assignment, told):
    document = Document(TEXT, "x.yaml")
    document.override(assignment)
    assert document.problems == [told]


def test_the_text_of_the_data_is_read_again_as_it_was():
    data = {"a": [1, 2.5, None, True, "no", "1", "é — 木\n"], "b": {"c": {}}, "d": "# x"}
    document = Document("", "x.yaml")
    document.data = data
    text = document.text("x.yaml with changes")
    assert text.splitlines()[0] == "# x.yaml with changes"
    assert read(text) == data


@pytest.mark.parametrize(
    ("entry", "form"),
    [
        ("fold", {"fold": {}}), ({"fold": None}, {"fold": {}}), ({"fold": {"a": 1}}, {"fold": {"a": 1}}),
        ({"fold": 3}, {"fold": 3}), ({"a": None, "b": None}, {"a": None, "b": None}), ({}, {}), (3, 3), (["a"], ["a"]),
    ],
)  # fmt: skip
def test_an_entry_has_one_form(entry, form):
    assert one_form(entry) == form


def test_without_the_parser_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    with pytest.raises(MissingDependency, match=r"ruamel\.yaml is not installed.*\n.*t2iexport\[compile\]"):
        Document("a: 1", "x.yaml")
