"""Whether a tokenizer's file is CLIP's, which is the one that a page reads."""

from __future__ import annotations

from typing import Any

from engines.errors import UnsupportedError

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
#: What cuts a text into words: of today's transformers, and of the files that OpenAI published.
_PATTERNS = (rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}", _WORDS)
_NORMALIZERS = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]
_NONE: dict[str, Any] = {}
_BPE = {"type": "BPE", "end_of_word_suffix": "</w>"}
#: Of a BPE, what CLIP's leaves off.
_OFF = ("dropout", "continuing_subword_prefix", "fuse_unk", "byte_fallback", "ignore_merges")


def require_clip(content: dict[str, Any], name: str) -> None:
    """Raise UnsupportedError, which names what is different, unless a tokenizer.json is CLIP's in all that decides ids."""
    different = [what for what, same in _comparisons(content) if not same]
    if different:
        raise UnsupportedError(
            f"{name} is no tokenizer of CLIP (its {', '.join(different)} is another), and a page reads no other. Serve this "
            "bundle with: t2iexport generate"
        )


def _comparisons(content: dict[str, Any]) -> list[tuple[str, bool]]:
    model, cuts = content["model"], _sequence(content, "pre_tokenizer", "pretokenizers")
    post, padding = content["post_processor"] or _NONE, content["padding"] or _NONE
    split, *others = [*cuts, _NONE]
    bytes_ = [{key: cut.get(key) for key in ("type", "add_prefix_space", "use_regex")} for cut in others[:-1]]
    flags = [token[key] for token in content["added_tokens"] for key in ("single_word", "lstrip", "rstrip")]
    return [
        ("model", {**model, **_BPE} == model and not any(model.get(key) for key in _OFF)),
        ("normalizer", _sequence(content, "normalizer", "normalizers") == _NORMALIZERS),
        ("pre_tokenizer", split in [_split(pattern) for pattern in _PATTERNS]),
        ("pre_tokenizer's ByteLevel", bytes_ == [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]),
        ("post_processor", post.get("type") == "RobertaProcessing" or _template(post)),
        ("padding", padding.get("direction") == "Right"),
        ("added_tokens", not any(flags)),
    ]


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}


def _sequence(content: dict[str, Any], kind: str, within: str) -> list[dict[str, Any]]:
    found: dict[str, Any] = content[kind] or _NONE
    return found.get(within, [found])


def _template(post: dict[str, Any]) -> bool:
    """Whether one text stands once between special tokens."""
    kinds = [next(iter(each)) for each in post.get("single", [])] if post.get("type") == "TemplateProcessing" else []
    return kinds.count("Sequence") == 1 and set(kinds) <= {"Sequence", "SpecialToken"}
