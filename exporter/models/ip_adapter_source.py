"""Where an IP-Adapter is that a recipe asks for: its file, what kind it is, and what reads its picture. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from engines.errors import RecipeError, UnsupportedError
from exporter.models import config_types, hub, kinds, locate, lora, safetensors_header
from exporter.models.ip_adapter import IpAdapter, having
from exporter.models.safetensors_header import Header, read_json

if TYPE_CHECKING:
    from exporter.models.checkpoint import Checkpoint
    from exporter.recipe.ip_adapter import IpAdapterOptions
    from exporter.recipe.schema import ModelOptions

#: What diffusers calls the networks of a pipeline that read an adapter's picture.
ENCODER, EXTRACTOR = "image_encoder", "feature_extractor"


class _Kind(NamedTuple):
    """A kind of adapter, by its tensors, which are named behind `image_proj.`; each place is a tensor and an axis.

    Attributes:
        mark: the tensor that only this kind has.
        field: of the image encoder's config: how wide that is which the adapter reads of it.
        reads: where the adapter is as wide.
        gives: where it is as wide as the text beside which it was trained, `tokens` times.
        tokens: how often.

    """

    mark: str
    field: str
    reads: tuple[str, int]
    gives: tuple[str, int]
    tokens: int = 1


_KINDS = (
    _Kind("proj.weight", "projection_dim", ("proj.weight", 1), ("proj.weight", 0), 4),
    _Kind("proj.3.weight", "hidden_size", ("proj.0.weight", 0), ("proj.3.weight", 0)),  # of whole faces
    _Kind("latents", "hidden_size", ("proj_in.weight", 1), ("proj_out.weight", 0)),  # plus
)
#: What an adapter of faces has, whose pictures another network reads than CLIP.
_FACES = re.compile(r"image_proj\.perceiver_resampler\..*|ip_adapter\.\d+\.to_\w+_lora\..*")
_LAYER = re.compile(r"ip_adapter\.(\d+)\.to_k_ip\.weight")
#: Where adapters and image encoders lie in published folders.
_ELSEWHERE = ("*/*.safetensors", "image_encoder/config.json", "*/image_encoder/config.json")
#: Defaults of CLIP's image tower.
_USUAL = {"projection_dim": 512, "hidden_size": 768}


def with_ip_adapter(base: Checkpoint, model: ModelOptions, asked: IpAdapterOptions, root: Path) -> Checkpoint:
    """A model with the IP-Adapter that the recipe asks for: its UNet reads a picture, which an image encoder sees.

    Raises:
        RecipeError: nothing is there under that name, or it does not fit the model.
        UnsupportedError: a pickle, no IP-Adapter, or one of a kind that is not built.

    """
    where = "model.ip_adapter"
    if model.weights == "random":
        raise RecipeError(f"{where}: random weights hold nothing that an adapter could steer; leave it out")
    if "unet" not in base.configs:
        name = base.configs["model_index"].get("_class_name")
        raise RecipeError(f"{where}: is for models with a UNet, as Stable Diffusion and SDXL have one, and this is a {name}")
    folder, told, names, notes = _files(asked, root, where, own_encoder=ENCODER in base.configs)
    file = folder / names[0]
    header = safetensors_header.header(file)
    adapter = IpAdapter(file, header.shapes)
    kind = _kind(file, header)
    _refuse_other_base(where, base, adapter, kind)
    configs, files = dict(base.configs), dict(base.files)
    index = dict(configs["model_index"])
    if ENCODER not in configs:
        place = folder / PurePosixPath(names[1]).parent
        configs[ENCODER] = read_json(place / "config.json")
        config_types.refuse_types(ENCODER, configs[ENCODER], str(place))
        files[ENCODER] = tuple(folder / name for name in names[1:] if name.endswith(".safetensors"))
        index[ENCODER] = ["transformers", "CLIPVisionModelWithProjection"]
    _refuse_other_encoder(where, configs[ENCODER], adapter, kind)
    if EXTRACTOR not in configs:  # as diffusers makes one
        side = int(configs[ENCODER].get("image_size", 224))
        configs[EXTRACTOR] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        index[EXTRACTOR] = ["transformers", "CLIPImageProcessor"]
    configs |= {"unet": having(configs["unet"]), "model_index": index}
    provenance = {**base.provenance, "ip_adapter": told}
    return replace(base, configs=configs, files=files, provenance=provenance, notes=(*base.notes, *notes), ip_adapter=adapter)


class _Source(NamedTuple):
    """Where an adapter is found: its folder, how that is told, its files by name in it, and what the hub has to say."""

    folder: Path
    told: str
    names: list[str]
    notes: tuple[str, ...] = ()


def _files(asked: IpAdapterOptions, root: Path, where: str, *, own_encoder: bool) -> _Source:
    """The source, with the adapter's file first, then the image encoder's."""

    def wanted(names: Sequence[str]) -> list[str]:
        inside = [name for name in names if str(PurePosixPath(name).parent) == (asked.subfolder or ".")]
        short = [PurePosixPath(name).name for name in inside]
        place = f"{asked.source}/{asked.subfolder}" if asked.subfolder else asked.source
        if asked.weight_name is None and not short:
            raise RecipeError(f"{where}.subfolder: {place} has no files{_instead(names)}")
        if asked.weight_name is not None and re.search(r"face.?id", asked.weight_name, re.IGNORECASE):
            raise _faces(asked.weight_name)
        chosen = lora.choose(short, asked.weight_name, where, place, ())
        if not chosen.endswith(".safetensors"):
            raise UnsupportedError(
                f"{place}/{chosen} is no .safetensors file; weights in another are a pickle, which can run any code when it is "
                f"opened.\n  Take {PurePosixPath(chosen).with_suffix('.safetensors')}, as h94/IP-Adapter has one beside each."
            )
        taken = f"{asked.subfolder}/{chosen}" if asked.subfolder else chosen
        return [taken] if own_encoder else [taken, *_encoder(asked, names, where)]

    found = locate.find(asked.source, root, f"{where}.source")
    if found is None:
        fetched = hub.fetch_chosen(asked.source, asked.revision, wanted)
        names = wanted(_listed(fetched.place, asked))
        return _Source(fetched.place, f"{asked.source} at {fetched.commit} {names[0]}", names, fetched.notes)
    if found.is_dir():
        names = wanted(_listed(found, asked))
        return _Source(found, f"{asked.source} {names[0]}", names)
    if asked.subfolder or asked.weight_name:
        raise RecipeError(f"{where}.source: {asked.source} is a file; leave subfolder and weight_name out")
    beside = [] if own_encoder else _encoder(asked, _listed(found.parent, asked), where)
    return _Source(found.parent, asked.source, [found.name, *beside])


def _folder_of_encoder(asked: IpAdapterOptions) -> str:
    """Where the image encoder is in a source, as diffusers has it."""
    below = asked.subfolder if "/" not in asked.image_encoder_folder else None
    return f"{below}/{asked.image_encoder_folder}" if below else asked.image_encoder_folder


def _listed(folder: Path, asked: IpAdapterOptions) -> list[str]:
    """Files of a folder, by name: those beside an adapter and its image encoder, and what tells that others are elsewhere."""
    patterns = (f"{asked.subfolder or '.'}/*", f"{_folder_of_encoder(asked)}/*")
    found = {file for each in (*patterns, *_ELSEWHERE) for file in folder.glob(each) if file.is_file()}
    return sorted(file.relative_to(folder).as_posix() for file in found)


def _encoder(asked: IpAdapterOptions, names: Sequence[str], where: str) -> list[str]:
    """The image encoder's files among those of a source, its config first."""
    folder = _folder_of_encoder(asked)
    inside = [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]
    if "config.json" not in inside:
        found = sorted(str(PurePosixPath(name).parent) for name in names if re.search(r"image_encoder/config\.json$", name))
        told = f"; write {' or '.join(found)}" if found else ", and the adapter's picture is read by one: name the folder of it"
        raise RecipeError(f"{where}.image_encoder_folder: {asked.source} has no image encoder in {folder}{told}")
    return [f"{folder}/{name}" for name in ("config.json", *safetensors_header.chosen(inside, f"{asked.source}/{folder}"))]


def _instead(names: Sequence[str]) -> str:
    found = sorted({str(PurePosixPath(name).parent) for name in names if re.search(r"ip.?adapter.*\.safetensors$", name)})
    return f"; there are adapters in {' and '.join(found)}" if found else ""


def _faces(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} is an IP-Adapter of the FaceID kind, whose pictures insightface reads, and not CLIP; it is not built.\n"
        "  Take a plain one, such as ip-adapter_sd15.safetensors, ip-adapter-plus_sd15.safetensors or "
        "ip-adapter-plus-face_sd15.safetensors."
    )


def _kind(file: Path, header: Header) -> _Kind:
    layers = [name for name in header.shapes if _LAYER.fullmatch(name)]
    found = next((kind for kind in _KINDS if f"image_proj.{kind.mark}" in header.shapes), None)
    if any(_FACES.fullmatch(name) for name in header.shapes) or (found is None and "image_proj.norm.weight" in header.shapes):
        raise _faces(file.name)
    if found is None or not layers or any(f"image_proj.{name}" not in header.shapes for name, _ in (found.reads, found.gives)):
        other = kinds.of_file(header.shapes, header.metadata)
        told = "not one that is known" if other is None or other is kinds.ADAPTER else other.name
        raise UnsupportedError(
            f"{file} is no IP-Adapter of Stable Diffusion or SDXL, but {told}.\n"
            "  One has image_proj.* and ip_adapter.* in it, as h94/IP-Adapter's have them."
        )
    return found


def _length(adapter: IpAdapter, place: tuple[str, int]) -> int:
    return adapter.shapes[f"image_proj.{place[0]}"][place[1]]


def _refuse_other_base(where: str, base: Checkpoint, adapter: IpAdapter, kind: _Kind) -> None:
    """Raise RecipeError where the adapter's text width is none of the UNet's."""
    own, width = _length(adapter, kind.gives) // kind.tokens, base.configs["unet"].get("cross_attention_dim", 1280)
    if own == width:
        return
    bases = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}
    told, other = f", as of {bases[own]}" if own in bases else "", f", of {bases[width]}" if width in bases else ""
    raise RecipeError(
        f"{where}: {adapter.file.name} is of another base: its cross-attention is {own} wide{told}, and that of this model's "
        f"UNet {json.dumps(width)}{other}; take an adapter of this base"
    )


def _refuse_other_encoder(where: str, config: Mapping[str, Any], adapter: IpAdapter, kind: _Kind) -> None:
    """Raise RecipeError where the image encoder's answer is not as wide as the adapter reads it."""
    if config.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise RecipeError(
            f"{where}.image_encoder_folder: holds a {config['model_type']}, and an IP-Adapter's picture is read by CLIP's image "
            "tower (clip_vision_model)"
        )
    own, width = _length(adapter, kind.reads), int(config.get(kind.field, _USUAL[kind.field]))
    if own != width:
        raise RecipeError(
            f"{where}.image_encoder_folder: {adapter.file.name} reads an image encoder of {kind.field} {own}, and this one's is "
            f"{width}; h94/IP-Adapter has ViT-H (1280 wide, projected to 1024) in models/image_encoder, which adapters of SD and "
            "all that are called vit-h read, and ViT-bigG (1664, 1280) in sdxl_models/image_encoder"
        )
