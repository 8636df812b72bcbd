"""Another model's network for one part: found, and held to what the source's other parts expect of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from engines.errors import RecipeError, UnsupportedError
from engines.plugins import did_you_mean
from engines.strict import Frozen
from exporter.models import architectures, hub, safetensors_header
from exporter.models.checkpoint import SCHEME, Checkpoint, network, placed, read_json, resolve
from exporter.recipe.schema import Model

Config = Mapping[str, Any]
#: What the other parts rely on: fields of a network's config, with what the libraries take where one is left out.
_SHARED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "unet": {
        "latent space": {"in_channels": 4, "out_channels": 4},
        "text width": {
            "cross_attention_dim": 1280,
            "addition_embed_type": None,
            "projection_class_embeddings_input_dim": None,
            "encoder_hid_dim_type": None,
            "class_embed_type": None,
        },
        "kind of guidance": {"time_cond_proj_dim": None},
    },
    "vae": {"latent space": {"latent_channels": 4}, "kind of picture": {"in_channels": 3, "out_channels": 3}},
    "text": {
        "vocabulary": {"vocab_size": 49408, "max_position_embeddings": 77},
        "text width": {"hidden_size": 512, "projection_dim": 512},
    },
}
#: Of two KL VAEs: latents that are scaled otherwise are of another space. A tiny one takes the scaled latents as they are.
_SCALING = {"scaling_factor": 0.18215, "latents_mean": None, "latents_std": None}
_DECODERS = ("AutoencoderKL", "AutoencoderTiny")


class NetworkSource(Frozen):
    """Where a network comes from that is another model's, or fresh."""

    source: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None,
        description="folder or hub id of the network, or of a pipeline that has it; an architecture, for random weights",
    )
    revision: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None, description="hub revision; the resolved commit goes into the bundle"
    )
    weights: Literal["pretrained", "random"] = "pretrained"
    seed: int = Field(default=0, ge=0, description="seed of random weights")
    fields: dict[str, Any] = Field(
        default_factory=dict,
        description="of a network with random weights: fields of its config that change source's, or all, with _class_name",
    )


@dataclass(frozen=True)
class _Found:
    """A network: its config, its folder (None of an architecture), where it came from, and what its own scheduler says."""

    config: Config
    folder: Path | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    schedule: Config = field(default_factory=dict)


def borrow(step: NetworkSource, part: str, source: Checkpoint, root: Path, where: str) -> Checkpoint:
    """The source with another network in a part's place; LoRAs that change the part are fused into that one.

    A folder is looked for beside the recipe (`root`), then in the working directory, then among the architectures, then on the
    hub, as a model is. Downloads what is on the hub, of random weights the config alone.

    Args:
        step: which network.
        part: the recipe's name for the part.
        source: the model that it comes into.
        root: the recipe's folder.
        where: dotted path of the pass in the recipe.

    Raises:
        RecipeError: there is nothing under that name.
        UnsupportedError: no network is there, or one of another class, latent space, text or prediction than the source's.

    """
    found = _Found(step.fields) if step.source is None else _find(step, part, root, where)
    config = {**found.config, **step.fields}
    for what, how in _differences(part, source, config, found.schedule):
        raise UnsupportedError(
            f"swap of {part}: {step.source or 'it'} has another {what} than the source: {how}.\n"
            "  Take a network that could stand in the source's place."
        )
    told, files, seed = dict(found.told), (), None
    if step.weights == "random":
        seed = step.seed
        told |= {"weights": "random", "seed": str(seed), "scheme": SCHEME}
    elif (folder := found.folder) is not None:
        files = tuple(folder / name for name in safetensors_header.chosen((file.name for file in folder.iterdir()), str(folder)))
    configs = placed(source.configs, part, config)
    return replace(source, configs=configs, provenance=told, files={part: files}, seed=seed, single=False, remade=frozenset())


def teacher(name: str | None, source: Checkpoint, root: Path, where: str) -> Checkpoint:
    """The model to learn from: the source, unless a pass names another.

    Args:
        name: folder, hub id or architecture of the other; None for the source.
        source: the model that the student comes from.
        root: the recipe's folder.
        where: the pass's option, for the message.

    Raises:
        UnsupportedError: its latents, its text or what it predicts are not the source's.
        RecipeError: there is no such model.

    """
    if name is None:
        return source
    other = resolve(Model(source=name), root)
    for what, component, fields in (
        ("latent space", "vae", ("_class_name", "latent_channels", "scaling_factor", "shift_factor", "block_out_channels")),
        ("latent space", "unet", ("in_channels", "out_channels")),
        ("text width", "unet", ("cross_attention_dim", "addition_embed_type", "projection_class_embeddings_input_dim")),
        ("prediction type", "scheduler", ("prediction_type",)),
    ):
        own, others = ({each: config.configs.get(component, {}).get(each) for each in fields} for config in (source, other))
        for each in fields:
            if own[each] != others[each]:
                raise UnsupportedError(
                    f"{where}: {name} has another {what}: {component}.{each} is {others[each]!r}, "
                    f"the student's {own[each]!r}.\n  Take a teacher that its student could replace."
                )
    return other


def _find(step: NetworkSource, part: str, root: Path, where: str) -> _Found:
    name = str(step.source)
    for place in (root / Path(name).expanduser(), Path(name).expanduser()):
        if place.is_dir():
            return _opened(place, part, {"source": name})
    if name in architectures.names():
        if step.weights == "pretrained":
            raise RecipeError(
                f"{where}.source: {name!r} is an architecture, which has no weights of its own; set weights: random"
            )
        configs = architectures.configs(name)
        if network(part) not in configs:
            raise RecipeError(f"{where}.source: the architecture {name!r} has no {network(part)}")
        config = {"_class_name": configs["model_index"][network(part)][1], **configs[network(part)]}
        return _Found(config, None, {"source": name}, configs["scheduler"])
    if not hub.ID.fullmatch(name) or name.endswith((".safetensors", ".ckpt")):
        raise RecipeError(
            f"{where}.source: {name!r} is neither a folder (looked in {root} and {Path.cwd()}), nor a hub id (owner/name), nor "
            f"an architecture{did_you_mean(name, architectures.names())}"
        )
    place, commit = hub.fetch_network(name, step.revision, network(part), weights=step.weights == "pretrained")
    return _opened(place, part, {"source": name, "revision": commit})


def _opened(place: Path, part: str, told: Mapping[str, str]) -> _Found:
    """A network's own folder, or a pipeline's, whose scheduler says what its UNet predicts."""
    pipeline = (place / "model_index.json").is_file()
    folder = place / network(part) if pipeline else place
    if not (folder / "config.json").is_file():
        raise UnsupportedError(
            f"swap of {part}: {folder} has no config.json, so there is no network.\n"
            f"  Name the folder that save_pretrained wrote, or a pipeline with a folder {network(part)}."
        )
    schedule = place / "scheduler" / "scheduler_config.json"
    known = read_json(schedule) if pipeline and schedule.is_file() else {}
    return _Found(read_json(folder / "config.json"), folder, told, known)


def _differences(part: str, source: Checkpoint, config: Config, schedule: Config) -> Iterator[tuple[str, str]]:
    """What the other parts could not work with, and how it shows."""
    own, kind = source.configs[network(part)], "text" if part.startswith("text_encoder") else network(part)
    ours = str(source.configs["model_index"][network(part)][1])
    theirs = str(config.get("_class_name") or next(iter(config.get("architectures") or ()), ours))  # transformers need not say
    allowed = _DECODERS if part == "vae_decoder" else (ours,)
    if theirs not in allowed:
        yield "class", f"it is of {theirs}, and only {' or '.join(allowed)} can stand there"
    scaled = kind == "vae" and ours == theirs == _DECODERS[0]
    for what, fields in (*_SHARED[kind].items(), *([("latent space", _SCALING)] if scaled else [])):
        for name, default in fields.items():
            before, after = (_plain(each.get(name, default)) for each in (own, config))
            if before != after:
                yield what, f"its {name} is {after!r}, the source's {before!r}"
    if kind == "vae" and (cells := [_cell(name, each) for name, each in ((ours, own), (theirs, config))])[0] != cells[1]:
        yield "latent space", f"one cell of a latent is {cells[1]} px wide, of the source's {cells[0]}"
    if kind == "unet":
        stages = [len(each.get("down_block_types", [""] * 4)) for each in (own, config)]
        if stages[1] > stages[0]:
            yield "depth", f"it has {stages[1]} stages, the source {stages[0]}, so it takes fewer sizes"
        kinds = [each.get("prediction_type", "epsilon") for each in (source.configs["scheduler"], schedule)]
        if schedule and kinds[0] != kinds[1]:
            yield "prediction type", f"its pipeline's scheduler says {kinds[1]!r}, the source's {kinds[0]!r}"


def _cell(kind: str, config: Config) -> int:
    """Pixels that one cell of a latent is wide."""
    if kind == "AutoencoderTiny":
        return int(config.get("upsampling_scaling_factor", 2)) ** (len(config.get("decoder_block_out_channels", [64] * 4)) - 1)
    return 2 ** (len(config.get("block_out_channels", [64])) - 1)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """A width that is the same in every stage, as one number."""
    return value[0] if isinstance(value, list | tuple) and len(set(value)) == 1 else value
