"""Why a stage is made again, in words."""

from exporter.stages.differences import differences, reasons


def test_every_ingredient_that_differs_is_a_phrase():
    old = {"options": {"opset": 20, "a": [1, 2]}, "inputs": {"weights": "x", "gone": "y"}, "versions": {"torch": "1"}, "code": {}}
    new = {"options": {"opset": 23, "a": [1, 2], "new": 1}, "inputs": {"weights": "z"}, "versions": {"torch": "2"}, "code": {}}
    assert list(differences(old, new)) == [
        "input gone removed", "input weights changed", "options.new added", "options.opset 20 → 23", "torch 1 → 2",
    ]  # fmt: skip


def test_of_modules_three_are_named():
    old, new = ({"code": {f"exporter.{name}": digest for name in "abcde"}} for digest in "xy")
    assert list(differences(old, new)) == ["code of exporter.a, exporter.b, exporter.c and 2 more changed"]


def test_a_line_names_the_first_of_many():
    old, new = ({"options": dict.fromkeys("abcde", value)} for value in (1, 2))
    assert reasons(old, new) == "options.a 1 → 2; options.b 1 → 2; options.c 1 → 2; and 2 more"
    assert reasons(old, old) == ""
    assert reasons({"options": {"a": 1}}, {"options": {"a": 2}}) == "options.a 1 → 2"
