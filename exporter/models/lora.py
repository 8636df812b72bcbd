"""LoRAs that a recipe asks for: where their files are, and which networks they change. Reads headers only, without torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import RecipeError, UnsupportedError
from engines.plugins import did_you_mean
from exporter.models import hub, safetensors_header

if TYPE_CHECKING:
    from exporter.recipe.schema import Lora as Asked
    from exporter.recipe.schema import Model

#: Component → how its weights' names start in diffusers' and peft's files, and in kohya's.
_PREFIXES = {
    "unet": ("unet.", "lora_unet_"),
    "text_encoder": ("text_encoder.", "lora_te_", "lora_te1_"),
    "text_encoder_2": ("text_encoder_2.", "lora_te2_"),
}
#: What diffusers calls the one file of a repository.
_USUAL = "pytorch_lora_weights.safetensors"
#: Words in a file that name it.
_TITLES = ("modelspec.title", "ss_output_name")
_LISTED = 8  # names in one message


@dataclass(frozen=True)
class Lora:
    """A LoRA at hand.

    Attributes:
        file: safetensors.
        scale: by which its change of the weights is multiplied.
        components: networks that it changes.
        title: what the file calls itself, else empty.
        provenance: for the bundle: source, commit, file and scale.

    """

    file: Path
    scale: float
    components: frozenset[str]
    title: str
    provenance: str


def resolve(model: Model, root: Path, components: Collection[str]) -> tuple[Lora, ...]:
    """Find every LoRA of a recipe, and tell what it changes.

    Raises:
        RecipeError: nothing is there under that name, or several files and no name for one; random weights.
        UnsupportedError: not a whole safetensors file, or one with weights that belong to no network of the model.

    """
    if model.loras and model.weights == "random":
        raise RecipeError("model.loras: random weights hold nothing that a LoRA could change; leave the list out")
    return tuple(_resolved(asked, f"model.loras[{index}]", root, components) for index, asked in enumerate(model.loras))


def _resolved(asked: Asked, place: str, root: Path, components: Collection[str]) -> Lora:
    file, commit = _file(asked, place, root)
    if file.suffix != ".safetensors":
        safetensors_header.refuse_pickle(str(file), [file.name])
        raise UnsupportedError(f"{file} is not a .safetensors file.\n  A LoRA is a .safetensors file.")
    names = sorted(safetensors_header.shapes(file))
    owners = {name: next((part for part, starts in _PREFIXES.items() if name.startswith(starts)), "") for name in names}
    refuse_left(file, [name for name in names if owners[name] not in components])
    words = safetensors_header.metadata(file)
    title = next((words[key] for key in _TITLES if words.get(key)), "")
    told = f"{asked.source}{f' at {commit}' if commit else ''}{f' {file.name}' if file.name not in asked.source else ''}"
    return Lora(file, asked.scale, frozenset(owners.values()), title, f"{told} × {asked.scale:g}")


def refuse_left(file: Path, names: Sequence[str]) -> None:
    """Raise UnsupportedError where weights of a LoRA have no place in the model."""
    if names:
        listed = ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")
        raise UnsupportedError(
            f"{file}: {len(names)} weights have no place in the model: {listed}.\n"
            "  The LoRA is for another model, or of a kind other than LoRA (LoHa, LoKr, DoRA), of which none is fused here."
        )


def _file(asked: Asked, place: str, root: Path) -> tuple[Path, str]:
    for found in (root / Path(asked.source).expanduser(), Path(asked.source).expanduser()):
        if found.is_file():
            return found, ""
        if found.is_dir():
            return found / choose([file.name for file in found.iterdir()], asked.weight_name, place, asked.source), ""
    if not hub.ID.fullmatch(asked.source) or asked.source.endswith(".safetensors"):
        raise RecipeError(
            f"{place}.source: {asked.source!r} is neither a file or folder (looked in {root} and {Path.cwd()}), nor a hub id "
            "(owner/name)"
        )
    return hub.fetch_file(asked.source, asked.revision, lambda files: choose(files, asked.weight_name, place, asked.source))


def choose(files: Sequence[str], wanted: str | None, place: str, source: str) -> str:
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
    if _USUAL in tensors or len(tensors) == 1:
        return _USUAL if _USUAL in tensors else tensors[0]
    if not tensors:
        safetensors_header.refuse_pickle(source, files)
        raise RecipeError(f"{place}.source: {source} has no .safetensors file")
    raise RecipeError(f"{place}.weight_name: {source} has {len(tensors)} files; name one of: {', '.join(tensors)}")
