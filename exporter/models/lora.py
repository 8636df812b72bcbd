"""LoRAs that a recipe asks for: where their files are, and which networks they change. Reads headers only, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engines.errors import RecipeError, UnsupportedError
from engines.lora import spelling
from engines.lora.strength import PEFT, PEFT_WEIGHTS, config_of
from engines.plugins import did_you_mean
from exporter.models import hub, kinds, locate, recognition, safetensors_header, statements

if TYPE_CHECKING:
    from exporter.recipe.schema import LoraOptions as Asked
    from exporter.recipe.schema import ModelOptions

#: What diffusers and peft call the one file of a repository.
_USUAL = ("pytorch_lora_weights.safetensors", PEFT_WEIGHTS)
#: Words in a file that name it.
_TITLES = ("modelspec.title", "ss_output_name")
_LISTED = 8  # names in one message


class Named(Protocol):
    """One file that a recipe names."""

    @property
    def source(self) -> str: ...  # noqa: D102 - file, folder or hub id
    @property
    def weight_name(self) -> str | None: ...  # noqa: D102
    @property
    def revision(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True)
class Lora:
    """A LoRA at hand.

    Attributes:
        file: safetensors.
        scale: by which its change of the weights is multiplied.
        components: networks that it changes.
        title: what the file calls itself, else empty.
        provenance: for the bundle: source, commit, file and scale.
        notes: what its file says of the model that it was trained on, where this one is another; what of it is left out.
        config: JSON that peft or diffusers wrote about alpha and rank; empty where there is none.

    """

    file: Path
    scale: float
    components: frozenset[str]
    title: str
    provenance: str
    notes: tuple[str, ...] = ()
    config: str = ""


def resolve(model: ModelOptions, root: Path, configs: Mapping[str, Mapping[str, Any]]) -> tuple[Lora, ...]:
    """Find every LoRA of a recipe, and tell what it changes.

    Raises:
        RecipeError: nothing is there under that name, or several files and no name for one; random weights.
        UnsupportedError: not a whole safetensors file, or one with weights that belong to no network of the model.

    """
    if model.loras and model.weights == "random":
        raise RecipeError("model.loras: random weights hold nothing that a LoRA could change; leave the list out")
    return tuple(_resolved(asked, f"model.loras[{index}]", root, configs) for index, asked in enumerate(model.loras))


def _resolved(asked: Asked, place: str, root: Path, configs: Mapping[str, Mapping[str, Any]]) -> Lora:
    found = file_of(asked, place, root, _USUAL, beside=[PEFT])
    file, commit = found.place, found.commit
    if file.suffix != ".safetensors":
        safetensors_header.refuse_pickle(str(file), [file.name])
        raise UnsupportedError(f"{file} is not a .safetensors file.\n  A LoRA is a .safetensors file.")
    shapes, told_by = safetensors_header.shapes(file), safetensors_header.metadata(file)
    names = sorted(shapes)
    _refuse_other(file, shapes, told_by)
    # Words that it brings along are no change of a network, and are read where textual inversions are.
    owners = {name: spelling.owner(name) for name in names if not name.startswith(spelling.BUNDLED)}
    refuse_left(file, [name for name, owner in owners.items() if owner not in configs or spelling.other_format([name])])
    notes = [*found.notes, *statements.remarks(told_by, f"LoRA {file.name}", configs, changes=True)]
    config = config_of(file, told_by)
    title = next((told_by[key] for key in _TITLES if told_by.get(key)), "")
    told = f"{asked.source}{f' at {commit}' if commit else ''}{f' {file.name}' if file.name not in asked.source else ''}"
    return Lora(file, asked.scale, frozenset(owners.values()), title, f"{told} × {asked.scale:g}", tuple(notes), config)


def _refuse_other(file: Path, shapes: kinds.Shapes, words: Mapping[str, str]) -> None:
    """Raise UnsupportedError where nothing in a file is a change of a network; says what the file is."""
    if spelling.other_format(shapes) or any(spelling.split(name) or name.startswith(spelling.BUNDLED) for name in shapes):
        return
    kind = kinds.of_file(shapes, words)
    if kind is None or kind is kinds.LORA:
        told, way = "something else", "Take a file with changes of weights, as trainers of LoRAs write it."
        kind = kinds.Kind("a whole model" if recognition.outline(shapes) else told, way)
    raise UnsupportedError(f"{file} is {kind.name.removesuffix(', not a model')}, and no LoRA.\n  {kind.way}")


def refuse_left(file: Path, names: Sequence[str]) -> None:
    """Raise UnsupportedError where weights of a LoRA have no place in the model; says what their format is called."""
    if not names:
        return
    listed = ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")
    if called := spelling.left_over(names):
        raise UnsupportedError(
            f"{file} is in a format that is not fused here, {called}: {listed}.\n"
            "  Fused are LoRA, LoCon (Tucker too), LoHa, LoKr, DoRA, and differences of whole weights and norms."
        )
    raise UnsupportedError(
        f"{file}: {len(names)} weights have no place in the model: {listed}.\n"
        "  The LoRA is for another model, or its trainer spells the layers in a way that is not known here."
    )


def file_of(asked: Named, place: str, root: Path, usual: Sequence[str], beside: Sequence[str] = ()) -> hub.Fetched:
    """Find the file that a recipe names, beside the recipe, in the working directory or on the hub.

    Args:
        asked: its source, and where that has several files which one.
        place: in the recipe.
        root: the recipe's folder.
        usual: names that are taken where there are several.
        beside: what else to fetch from the hub.

    Raises:
        RecipeError: nothing is there, or several files and no name for one.
        UnsupportedError: there are pickles only.

    """
    found = locate.find(asked.source, root, f"{place}.source")
    if found is not None and found.is_dir():
        names = [file.name for file in found.iterdir()]
        return hub.Fetched(found / choose(names, asked.weight_name, place, asked.source, usual), "")
    if found is not None:
        return hub.Fetched(found, "")
    return hub.fetch_file(
        asked.source, asked.revision, lambda files: choose(files, asked.weight_name, place, asked.source, usual), beside=beside
    )


def choose(files: Sequence[str], wanted: str | None, place: str, source: str, usual: Sequence[str] = _USUAL) -> str:
    """From the files of a folder or repository, the one that is meant.

    Raises:
        RecipeError: it is not there, or several could be.
        UnsupportedError: there are pickles only.

    """
    tensors = sorted(name for name in files if name.endswith(".safetensors"))
    if wanted is not None:
        if wanted in files:
            return wanted
        hint = did_you_mean(wanted, tensors) if tensors else "; it has no .safetensors file"
        raise RecipeError(f"{place}.weight_name: {source} has no {wanted!r}{hint}")
    if taken := [name for name in usual if name in tensors] or tensors[:1] * (len(tensors) == 1):
        return taken[0]
    if not tensors:
        safetensors_header.refuse_pickle(source, files)
        raise RecipeError(f"{place}.source: {source} has no .safetensors file")
    raise RecipeError(f"{place}.weight_name: {source} has {len(tensors)} files; name one of: {', '.join(tensors)}")
