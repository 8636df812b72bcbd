"""Where chunks end: at 75 tokens, at BREAK, and of A1111 at the last comma within 20 tokens."""

import pytest

from engines.chunks import Frame, Token, chunked

COMMA = 9
FRAME = Frame(32, (100,), (101,), 0, COMMA)  # of 30 tokens


def parts(ids, chunks, syntax=None):
    found = chunked([None if number is None else Token(number, 1.0, f"{number} ") for number in ids], FRAME, chunks, syntax)
    rows = [found.ids[start : start + 32] for start in range(0, 32 * chunks, 32)]
    assert all(row[0] == 100 and row.count(101) == 1 for row in rows)
    return [row[1 : row.index(101)] for row in rows], found.unread


@pytest.mark.parametrize(
    ("commas", "syntax", "first"),
    [
        ([20], "a1111", 21),  # the phrase behind the comma moves
        ([12, 20], "a1111", 21),
        ([10], "a1111", 11),  # 19 tokens behind it
        ([9], "a1111", 30),  # 20 are too many
        ([29], "a1111", 30),
        ([30], "a1111", 30),  # a comma does not move
        ([20], "compel", 30),
        ([20], None, 30),
    ],
)
def test_a_chunk_of_a1111_ends_behind_a_comma(commas, syntax, first):
    ids = [COMMA if number in commas else 200 + number for number in range(40)]
    found, unread = parts(ids, 2, syntax)
    assert found == [ids[:first], ids[first:]]
    assert not unread


def test_the_last_chunk_is_filled_whatever_its_commas():
    ids = [COMMA if number == 50 else 200 + number for number in range(70)]
    found, unread = parts(ids, 2, "a1111")
    assert found == [ids[:30], ids[30:60]]
    assert unread == "".join(f"{number} " for number in ids[60:])


def test_break_ends_a_chunk():
    assert parts([1, None, 2, 3], 3) == ([[1], [2, 3], []], "")
    assert parts([1, None, 2, None, 3], 2) == ([[1], [2]], "3 ")
