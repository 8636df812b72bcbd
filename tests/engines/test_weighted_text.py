"""Weights as A1111 and compel write them: their own documented examples."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import UnsupportedError
from engines.weighted_text import read


def pairs(text, syntax):
    return [(piece.text, piece.weight and round(piece.weight, 6)) for piece in read(text, syntax)]


@pytest.mark.parametrize("text", ["a (red:1.3) [b] c++", "", "(", "BREAK"])
def test_without_a_syntax_everything_is_literal(text):
    assert read(text, None) == [(text, 1.0)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
        ("[x] y", [("x", round(1 / 1.1, 6)), (" y", 1.0)]),
        ("a:b) c]", [("a:b) c]", 1.0)]),
        ("red BREAK (blue BREAK sea:2)", [("red", 1.0), ("", None), ("", 1.0), ("blue", 2.0), ("", None), ("sea", 2.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_a1111(text, wanted):
    assert pairs(text, "a1111") == wanted


@pytest.mark.parametrize("text", ["[cat:dog:0.5]", "[cat:0.5]", "a [cat|dog]", "a cat AND a dog", "a <lora:x:1>"])
def test_what_of_a1111_is_no_weight_is_refused(text):
    with pytest.raises(UnsupportedError, match="none of A1111's weights"):
        read(text, "a1111")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a ball++ in the forest", [("a", 1.0), ("ball", 1.21), ("in the forest", 1.0)]),
        ("a (red ball)1.3 here", [("a", 1.0), ("red ball", 1.3), ("here", 1.0)]),
        ('a "red ball"+ here', [("a", 1.0), ("red ball", 1.1), ("here", 1.0)]),
        ("(a (red)1.5 ball)2", [("a", 2.0), ("red", 3.0), ("ball", 2.0)]),
        ("(no weight) at all", [("no weight at all", 1.0)]),
        ("ball+, sea", [("ball", 1.1), (", sea", 1.0)]),
        ("well-known (unclosed", [("well-known (unclosed", 1.0)]),
        ("foo(bar)1.2", [("foo(bar)1.2", 1.0)]),
        (r"a \(real\) bracket", [("a (real) bracket", 1.0)]),
        ("(a, b.)1.2", [("a , b .", 1.2)]),
        ("", [("", 1.0)]),
    ],
)
def test_compel(text, wanted):
    assert pairs(text, "compel") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a ball- here", [("a", 1.0), ("ball", 0.9), ("here", 1.0)]),
        ("(red)0.5 (ball)0.5 here", [("red ball", 0.5), ("here", 1.0)]),  # neighbours of one weight are one group
        ("(a (red)0.5 ball)0.5", [("a", 0.5), ("red", 0.25), ("ball", 0.5)]),
    ],
)
def test_what_counts_less_in_compel(text, wanted):
    assert [(piece.text, piece.weight) for piece in read(text, "compel", 3)] == wanted


@pytest.mark.parametrize("text", ["(cat).swap(dog)", '("a", "b").blend(1, 1)', '("a", "b").and()', "withLora(x, 1) a"])
def test_what_of_compel_is_no_weight_is_refused(text):
    with pytest.raises(UnsupportedError, match="none of compel's weights"):
        read(text, "compel")


@pytest.mark.parametrize(("text", "many"), [("a ball- here", 0), ("(a)0.5 b (c)0.5", 1), ("(a (red)0.5 ball)0.8", 2)])
def test_more_groups_that_count_less_than_are_built_in_are_refused_with_a_way_out(text, many):
    with pytest.raises(UnsupportedError, match=rf"this bundle reads {many} in one prompt.*downweighted: {many + 1}"):
        read(text, "compel", many)
    assert read(text, "compel", many + 1)


@given(st.text('ab ()[]:\\.+-"1,', max_size=40), st.sampled_from(["a1111", "compel"]))
def test_every_text_is_read_or_refused(text, syntax):
    try:
        pieces = read(text, syntax, 9)
    except UnsupportedError:
        return
    assert pieces
    assert all(math.isfinite(piece.weight) for piece in pieces)
