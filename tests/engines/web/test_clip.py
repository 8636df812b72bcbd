import json
from pathlib import Path

import pytest

from engines.errors import UnsupportedError
from engines.web.clip import require_clip
from tests.engines import small
from tests.engines.web import javascript


def changed(path, value):
    """CLIP's file, but for one value."""
    content = javascript.clip_json("<cat>")
    *above, last = path
    place = content
    for key in above:
        place = place[key]
    place[last] = value
    return content


def test_clip_s_files_are_taken_of_either_kind():
    content = javascript.clip_json()
    require_clip(content, "tokenizer")
    split = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    split["Regex"] = split["Regex"].removeprefix(r"<\|startoftext\|>|<\|endoftext\|>|")
    require_clip(content, "tokenizer")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("model", "type"), "WordPiece", "model"),
        (("model", "end_of_word_suffix"), None, "model"),
        (("model", "byte_fallback"), True, "model"),
        (("normalizer",), None, "normalizer"),
        (("normalizer", "normalizers"), [{"type": "NFKC"}], "normalizer"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "pre_tokenizer, pre_tokenizer's ByteLevel"),
        (("pre_tokenizer", "pretokenizers", 0, "pattern"), {"Regex": r"\w+"}, "pre_tokenizer"),
        (("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), True, "pre_tokenizer's ByteLevel"),
        (("post_processor",), None, "post_processor"),
        (("post_processor",), {"type": "TemplateProcessing", "single": []}, "post_processor"),
        (("padding", "direction"), "Left", "padding"),
        (("added_tokens", 2, "lstrip"), True, "added_tokens"),
    ],
)
def test_what_is_different_is_named(path, value, named):
    with pytest.raises(UnsupportedError) as caught:
        require_clip(changed(path, value), "tokenizer_3")
    assert str(caught.value).startswith(f"tokenizer_3 is no tokenizer of CLIP (its {named} is another)")


def test_another_tokenizer_is_refused():
    with pytest.raises(UnsupportedError, match=r"tokenizer is no tokenizer of CLIP \(its model, normalizer, pre_tokenizer"):
        require_clip(json.loads(small.tokenizer_json()), "tokenizer")


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_both_of_the_demo_are_clip_s(name):
    file = Path(javascript.ROOT, "recipes/demo", name, "tokenizer.json")
    require_clip({**json.loads(file.read_text(encoding="utf-8")), "padding": {"direction": "Right"}}, name)
