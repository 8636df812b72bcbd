"""Textual inversions that a recipe asks for: which words they teach which text encoder. Reads headers only, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engines.errors import RecipeError, UnsupportedError
from engines.lora import spelling
from exporter.models import lora, safetensors_header

if TYPE_CHECKING:
    from torch import nn

    from exporter.recipe.prompts import Embedding as Asked
    from exporter.recipe.schema import ModelOptions

#: What a file calls its vectors where it does not name their word: A1111, and SDXL's two text encoders.
_NAMELESS = {"emb_params": None, "*": None, "clip_l": "text_encoder", "clip_g": "text_encoder_2"}
#: What a LoRA calls the vectors of a word that it brings along: A1111 and SDXL's text encoders, behind the word.
_BUNDLED = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "emb_params": None, "string_to_param.*": None}
#: What diffusers calls the one file of a repository.
_USUAL = ("learned_embeds.safetensors",)
_FORMATS = "Known are: one tensor a word, A1111's emb_params, and SDXL's clip_l with clip_g"


@dataclass(frozen=True)
class Vectors:
    """What one text encoder learns of a word.

    Attributes:
        word: as a prompt writes it.
        tower: text encoder.
        file: safetensors.
        key: of the tensor in it, (vectors, channels) or (channels,).
        count: of vectors.

    """

    word: str
    tower: str
    file: Path
    key: str
    count: int

    @property
    def tokens(self) -> tuple[str, ...]:
        """One a vector, as diffusers names them."""
        return self.word, *(f"{self.word}_{number}" for number in range(1, self.count))


@dataclass(frozen=True)
class RecipeEmbeddings:
    """A recipe's textual inversions, in its order; for the bundle where each came from, and sentences about what is odd."""

    vectors: tuple[Vectors, ...] = ()
    provenance: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def adding(
        self,
        vectors: Iterable[Vectors],
        source: str,
        notes: Iterable[str],
        place: str,
        configs: Mapping[str, Mapping[str, Any]],
    ) -> RecipeEmbeddings:
        """These and what one file teaches; `place` is in the recipe.

        Raises:
            RecipeError: one of its words is taught already.

        """
        more = tuple(vectors)
        known = {(each.tower, token): each.file for each in self.vectors for token in each.tokens}
        for each in more:
            for token in each.tokens:
                if (each.tower, token) in known:
                    other = known[each.tower, token].name
                    raise RecipeError(f"{place}: {token!r} is a word of {other} too; name one otherwise with token:")
        words = ", ".join(dict.fromkeys(each.word for each in more))
        remarks = _notes(more[0].file, more, configs)
        return RecipeEmbeddings((*self.vectors, *more), (*self.provenance, f"{source}: {words}"), (*self.notes, *notes, *remarks))


def resolve(
    model: ModelOptions, root: Path, configs: Mapping[str, Mapping[str, Any]], loras: Iterable[Path] = ()
) -> RecipeEmbeddings:
    """Find every textual inversion of a recipe, those that its LoRAs' files bring along too, and who reads it.

    Raises:
        RecipeError: nothing is there under that name, a word is taught twice, or there are random weights.
        UnsupportedError: a pickle, not a whole safetensors file, or vectors of another width than the text encoders'.

    """
    if model.embeddings and model.weights == "random":
        raise RecipeError("model.embeddings: to random weights no word means anything; leave the list out")
    found = RecipeEmbeddings()
    # What stands there by its source alone, the recipe has turned into such by now.
    for index, asked in enumerate(cast("tuple[Asked, ...]", model.embeddings)):
        place = f"model.embeddings[{index}]"
        fetched = lora.file_of(asked, place, root, _USUAL)
        source = f"{asked.source}{f' at {fetched.commit}' if fetched.commit else ''}"
        found = found.adding(_vectors(fetched.place, asked, place, configs), source, fetched.notes, place, configs)
    for number, file in enumerate(loras):
        if vectors := tuple(_bundled(file, configs)):
            found = found.adding(vectors, f"LoRA {file.name}", (), f"model.loras[{number}]", configs)
    return found


def _bundled(file: Path, configs: Mapping[str, Mapping[str, Any]]) -> Iterable[Vectors]:
    """What a LoRA's file teaches of words."""
    for key, shape in sorted(safetensors_header.shapes(file).items()):
        if not key.startswith(spelling.BUNDLED):
            continue
        word, _, what = key.removeprefix(spelling.BUNDLED).partition(".")
        if what not in _BUNDLED or not 1 <= len(shape) <= 2 or not word.strip() or any(sign.isspace() for sign in word):
            raise UnsupportedError(
                f"{file}: {key} {list(shape)} is no embedding of a word.\n  Known are {', '.join(_BUNDLED)}, of a matrix each; "
                "save the file without it."
            )
        yield Vectors(word, _tower(file, key, shape[-1], configs, _BUNDLED[what]), file, key, shape[0] if len(shape) == 2 else 1)


def _vectors(file: Path, asked: Asked, place: str, configs: Mapping[str, Mapping[str, Any]]) -> Iterable[Vectors]:
    if file.suffix != ".safetensors":
        safetensors_header.refuse_pickle(str(file), [file.name])
        raise UnsupportedError(f"{file} is not a .safetensors file.\n  A textual inversion is a .safetensors file.")
    shapes = safetensors_header.shapes(file)
    named = [key for key in shapes if key not in _NAMELESS]
    if not shapes or (named and len(named) < len(shapes)) or any(not 1 <= len(shape) <= 2 for shape in shapes.values()):
        raise UnsupportedError(
            f"{file} is no textual inversion: it holds {', '.join(sorted(shapes)) or 'nothing'}.\n  {_FORMATS}."
        )
    if asked.token is not None and len(named) > 1:
        raise RecipeError(f"{place}.token: {file.name} names {len(named)} words of its own, {', '.join(named)}; leave it out")
    for key, shape in sorted(shapes.items()):
        word = asked.token or (key if key in named else file.stem)
        if not word.strip() or any(sign.isspace() for sign in word):
            raise RecipeError(f"{place}.token: {word!r} is not one word; name it as prompts shall write it, such as token: <cat>")
        tower = _tower(file, key, shape[-1], configs, _NAMELESS.get(key))
        yield Vectors(word, tower, file, key, shape[0] if len(shape) == 2 else 1)


def _tower(file: Path, key: str, width: int, configs: Mapping[str, Mapping[str, Any]], wanted: str | None) -> str:
    """The text encoder whose vectors are that wide; of several the first, as diffusers takes it, unless one is `wanted`."""
    widths = {name: int(config.get("hidden_size", 512)) for name, config in configs.items() if name.startswith("text_encoder")}
    fitting = [name for name in sorted(widths) if widths[name] == width and wanted in {None, name}]
    if not fitting:
        listed = " and ".join(f"{name}'s {widths[name]}" for name in sorted(widths))
        raise UnsupportedError(
            f"{file}: {key} has vectors of {width} channels, and this model reads {listed}.\n"
            "  The textual inversion is for another model, such as SD 1.x with 768, SD 2.x with 1024, SDXL with 768 and 1280."
        )
    return fitting[0]


def _notes(file: Path, vectors: Iterable[Vectors], configs: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Of words that only some of the text encoders know."""
    towers = {name for name in configs if name.startswith("text_encoder")}
    for word in dict.fromkeys(each.word for each in vectors):
        taught = {each.tower for each in vectors if each.word == word}
        if left := sorted(towers - taught):
            listed, others = (" and ".join(sorted(names)) for names in (taught, left))
            yield f"embedding {file.name}: {word} is taught to {listed}; to {others} it is plain text"


def taught(tower: nn.Module, vectors: Sequence[Vectors], tokenizer: Any) -> nn.Module:  # noqa: ANN401 - transformers'
    """Give a text encoder the vectors of its words, at the ids that its tokenizer gives their tokens; changed in place."""
    import torch  # noqa: PLC0415 - a plan needs headers alone
    from safetensors.torch import load_file  # noqa: PLC0415

    tokens = [token for each in vectors for token in each.tokens]
    ids = dict(zip(tokens, tokenizer.convert_tokens_to_ids(tokens), strict=True))
    table: Any = cast("Any", tower).get_input_embeddings()
    rows = table.weight.data
    missing = max(ids.values()) + 1 - len(rows)
    table.weight.data = torch.cat([rows, rows.new_zeros(max(missing, 0), rows.shape[1])])
    table.num_embeddings = len(table.weight)
    for each in vectors:
        learned = load_file(each.file)[each.key].reshape(each.count, -1).to(rows.dtype)
        if not learned.isfinite().all():
            raise UnsupportedError(f"{each.file}: {each.key} holds NaN or infinity.\n  Download or copy it again.")
        for token, vector in zip(each.tokens, learned, strict=True):
            table.weight.data[ids[token]] = vector
    return tower
