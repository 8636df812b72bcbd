"""A tokenizer that is Python code over a model of SentencePiece, as one of `tokenizers` that reads the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from tokenizers.models import BPE, Unigram
from tokenizers.processors import TemplateProcessing

from engines.errors import UnsupportedError

#: What SentencePiece has in the place of a blank.
_BLANK = "▁"
#: Of the kinds of pieces in its file: what stands for no text, and what is taken whole.
_CONTROL, _WHOLE = 3, 4
#: Its algorithms by their numbers there.
_UNIGRAM, _BPE = 1, 2
#: Texts that both must read alike: cases, digits, blanks, signs, other scripts, what no vocabulary has, and nothing.
_TEXTS = (
    "A red circle, 3.50 m wide", "the  blue   square ", " leading blank", "Ünïcödé naïve café", "一只可爱的猫, 写实",
    "\tTab\nnew line", "(masterpiece:1.2), [best] {quality} <tag>", "ﬁne ﬀ ½ ² Ⅷ", "🙂🇩🇪 emoji", "it's \"quoted\" – …", "", "x",
)  # fmt: skip


def converted(source: Any) -> Tokenizer:  # noqa: ANN401 - transformers'
    """The same as a `tokenizers` one, which is proved on texts.

    Raises:
        UnsupportedError: it has no model of SentencePiece, or reads a text in another way than that says.

    """
    name, file = type(source).__name__, Path(str(getattr(source, "vocab_file", "")))
    if not file.is_file():
        raise UnsupportedError(
            f"{name} reads texts by Python code of its own, and a bundle has data.\n"
            "  Tokenizers with a tokenizer.json, or with a model of SentencePiece, are built."
        )
    made = _of_file(file, name)
    made.post_processor = _around(source)
    for text in _TEXTS:
        want, got = list(source(text)["input_ids"]), list(made.encode(text).ids)
        if want != got:
            told = f"{name} makes {want[:12]} of {text!r}, and its model of SentencePiece {got[:12]}"
            raise UnsupportedError(f"{told}: what its Python code does besides is not built.\n  The model is {file}.")
    return made


def _of_file(file: Path, name: str) -> Tokenizer:
    """What a model of SentencePiece says."""
    from transformers.convert_slow_tokenizer import generate_merges  # noqa: PLC0415 - seconds
    from transformers.utils import sentencepiece_model_pb2_new as format_of  # noqa: PLC0415

    read = format_of.ModelProto()  # pyright: ignore[reportAttributeAccessIssue] - protobuf makes it
    read.ParseFromString(file.read_bytes())
    pieces, trained = [(each.piece, each.score) for each in read.pieces], read.trainer_spec
    unknown = trained.unk_piece
    if trained.model_type == _UNIGRAM:
        made = Tokenizer(Unigram(pieces, trained.unk_id, trained.byte_fallback))
    elif trained.model_type == _BPE:
        whole = [each.piece for each in read.pieces if each.type != 1]
        vocab = {piece: number for number, (piece, _) in enumerate(pieces)}
        merges = generate_merges(vocab, {piece: score for piece, score in pieces if len(piece) > 1}, whole)
        made = Tokenizer(BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=trained.byte_fallback))
    else:
        raise UnsupportedError(f"{name}: its model of SentencePiece is neither unigram nor BPE, which is not built.")
    added = [each.piece for each in read.pieces if each.type == _WHOLE]
    made.add_tokens([AddedToken(piece, normalized=False) for piece in added])
    made.normalizer = normalizers.Sequence(_normalizers(read.normalizer_spec))
    return made


def _normalizers(asked: Any) -> list[Any]:  # noqa: ANN401 - of the file
    """What is done with a text before it is cut."""
    found: list[Any] = [normalizers.Precompiled(asked.precompiled_charsmap)] if asked.precompiled_charsmap else []
    if asked.remove_extra_whitespaces:
        found += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if asked.add_dummy_prefix:
        found += [normalizers.Prepend(_BLANK)]  # of a text that is empty nothing is made
    return [*found, normalizers.Replace(" ", _BLANK)]


def _around(source: Any) -> TemplateProcessing:  # noqa: ANN401 - transformers'
    """The ids that it puts around a text, by the name that each has there."""
    around = source.build_inputs_with_special_tokens([-1])
    named = [(f"[{number}]", number) for number in dict.fromkeys(around) if number >= 0]
    names = {number: name for name, number in named}
    return TemplateProcessing(" ".join("$0" if number < 0 else names[number] for number in around), None, named)
