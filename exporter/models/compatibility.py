"""Another model's network for one part: found, and held to what the source's other parts expect of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from engines.errors import RecipeError, UnsupportedError
from engines.strict import Frozen
from exporter.models import architectures, controls, hub, kinds, leftovers, locate, recognition, safetensors_header, statements
from exporter.models.checkpoint import SCHEME, Checkpoint, find, network, placed
from exporter.models.safetensors_header import read_json
from exporter.recipe.schema import ModelOptions

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
_SCALING = {"latent_channels": 4, "scaling_factor": 0.18215, "latents_mean": None, "latents_std": None}
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
    """A network: its config, its files (none of an architecture), where it came from, and what its own scheduler says.

    `original`: its file is not diffusers' own, as of a `Checkpoint`.
    """

    config: Config
    files: tuple[Path, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)
    schedule: Config = field(default_factory=dict)
    original: bool = False


def borrow(step: NetworkSource, part: str, source: Checkpoint, root: Path, where: str) -> Checkpoint:
    """The source with another network in a part's place; LoRAs that change the part are fused into that one.

    It is looked for as a model is, see `locate`. Downloads what is on the hub, of random weights the config alone.

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
    random = step.weights == "random"
    look = _Look(part, source, root, f"{where}.source", step.revision, random)
    found = _Found(step.fields) if step.source is None else look.find(step.source)
    config = {**found.config, **step.fields}
    _refuse(f"swap of {part}: {step.source or 'it'}", part, source, config, found.schedule)
    told = dict(found.told)
    if random:
        told |= {"weights": "random", "seed": str(step.seed), "scheme": SCHEME}
    return replace(
        source,
        configs=placed(source.configs, part, config),
        provenance=told,
        files={part: () if random else found.files},
        seed=step.seed if random else None,
        originals=frozenset({part} if found.original else ()),
        remade=frozenset(),
    )


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
    other = find(ModelOptions(source=name), root)
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


def with_vae(source: Checkpoint, model: ModelOptions, root: Path) -> Checkpoint:
    """A model with the VAE that its recipe names in `model.vae`, whether it has one of its own or not.

    Raises:
        RecipeError: there is nothing under that name, or the model's weights are random.
        UnsupportedError: it is no VAE of the model's latent space.

    """
    name = str(model.vae)
    if model.weights == "random":
        raise RecipeError("model.vae: the model's weights are random, and its VAE's too; leave it out")
    found = _Look("vae", source, root, "model.vae", None, random=False).find(name)
    _refuse(f"model.vae {name}", "vae", source, found.config, {})
    told = ", ".join(found.told.values())
    return replace(
        source,
        configs=placed(source.configs, "vae", found.config),
        provenance={**source.provenance, "vae": told},
        files={**source.files, "vae": found.files},
        originals=(source.originals - {"vae"}) | ({"vae"} if found.original else set()),
    )


def with_base(base: Checkpoint, model: ModelOptions, root: Path) -> Checkpoint:
    """A recipe's `model.base` with the networks that `model.source` has: a UNet or a ControlNet alone, or a file without all.

    What the source says of its prediction counts, not what the base says of its own.

    Raises:
        RecipeError: there is nothing under the source's name, it is a whole model, or the weights are random.
        UnsupportedError: it has no UNet, or one that does not fit the base's other networks.

    """
    if model.weights == "random":
        raise RecipeError("model.base: random weights need no base; leave it out")
    whole = f"model.base: {model.source} is a whole model, which takes nothing from another; leave base out"
    place = locate.find(model.source, root, "model.source", architectures.names())
    parts, said, notes = ["unet"], (), ()
    if place is not None and place.is_dir() and (place / "model_index.json").is_file():
        raise RecipeError(whole)
    if place is not None and place.is_file():
        header = safetensors_header.header(place)
        kind = kinds.of_file(header.shapes, header.metadata, recognition.known().values())
        if kind is not None and kind not in {kinds.UNET, kinds.NO_TEXT, kinds.NO_VAE}:
            raise UnsupportedError(kind.sentence(place))
        parts, said = leftovers.networks(header.shapes, base.files) or parts, statements.stated(place)
        if kind is None and len(parts) == len(base.files):
            raise RecipeError(whole)
        remarks = statements.remarks(header.metadata, place.name, base.configs)
        notes = (leftovers.of_file(place.name, header.shapes, parts), *remarks)
    configs, files, told = base.configs, dict(base.files), dict[str, str]()
    originals = set(base.originals)
    for part in parts:
        found = _Look(part, base, root, "model.source", model.revision, random=False, variant=model.variant).find(model.source)
        if controls.is_control(found.config):
            steered = controls.beside(base, found.config, found.files, model.source)
            return replace(steered, provenance={**base.provenance, **found.told, "base": ", ".join(base.provenance.values())})
        _refuse(f"model.source {model.source}", part, base, found.config, {})
        configs, files[part], told = placed(configs, part, found.config), found.files, {**told, **found.told}
        originals = originals - {part} | ({part} if found.original else set())
    provenance = {**base.provenance, **told, "base": ", ".join(base.provenance.values())}
    if said:
        provenance["says"] = statements.told(said)
    return replace(
        base,
        configs=statements.applied(configs, said),
        provenance=provenance,
        files=files,
        originals=frozenset(originals),
        statements=(*base.statements, *said),
        notes=(*base.notes, *filter(None, notes)),
    )


def _refuse(what: str, part: str, source: Checkpoint, config: Config, schedule: Config) -> None:
    for kind, how in _differences(part, source, config, schedule):
        raise UnsupportedError(
            f"{what} has another {kind} than the source: {how}.\n  Take a network that could stand in the source's place."
        )


@dataclass(frozen=True)
class _Look:
    """Where a network may lie, and for which part of which model it is looked for; `where` is its line in the recipe."""

    part: str
    source: Checkpoint
    root: Path
    where: str
    revision: str | None
    random: bool
    variant: str | None = None

    def find(self, name: str) -> _Found:
        """On disk, among the architectures, on the hub."""
        place = locate.find(name, self.root, self.where, architectures.names())
        if place is not None:
            return (self._opened if place.is_dir() else self._in_file)(place, {"source": name})
        if name in architectures.names():
            return self._architecture(name)
        fetched = hub.fetch_network(name, self.revision, network(self.part), weights=not self.random, variant=self.variant)
        return self._opened(fetched.place, {"source": name, "revision": fetched.commit})

    def _architecture(self, name: str) -> _Found:
        if not self.random:
            passed = locate.passed_over(name, self.root)
            raise RecipeError(
                f"{self.where}: {name!r} is an architecture, which has no weights of its own{passed}; set weights: random"
            )
        configs = architectures.configs(name)
        if network(self.part) not in configs:
            raise RecipeError(f"{self.where}: the architecture {name!r} has no {network(self.part)}")
        config = {"_class_name": configs["model_index"][network(self.part)][1], **configs[network(self.part)]}
        return _Found(config, (), {"source": name}, configs["scheduler"])

    def _opened(self, place: Path, told: Mapping[str, str]) -> _Found:
        """A network's own folder, or a pipeline's, whose scheduler says what its UNet predicts."""
        pipeline = (place / "model_index.json").is_file()
        folder = place / network(self.part) if pipeline else place
        if not (folder / "config.json").is_file():
            raise UnsupportedError(
                f"{self.where}: {folder} has no config.json, so there is no network.\n"
                f"  Name the folder that save_pretrained wrote, a pipeline with a folder {network(self.part)}, or one file."
            )
        schedule = place / "scheduler" / "scheduler_config.json"
        known = read_json(schedule) if pipeline and schedule.is_file() else {}
        files = () if self.random else safetensors_header.files(folder, self.variant)
        return _Found(read_json(folder / "config.json"), files, told, known)

    def _in_file(self, file: Path, told: Mapping[str, str]) -> _Found:
        """A file with this network, alone or among others; its config is the source's, as far as its shapes say nothing else."""
        safetensors_header.refuse_pickle(str(file), [file.name])
        shapes, own = safetensors_header.shapes(file), self.source.configs[network(self.part)]
        kind = kinds.of_file(shapes, {})
        none = {kinds.TINY, kinds.LORA, kinds.EMBEDDING, kinds.CONTROL, kinds.ADAPTER, kinds.PACKED}
        if kind is not None and (kind in none or (kind is kinds.DECODER and self.part == "vae")):
            raise UnsupportedError(kind.sentence(file))
        config = {"_class_name": self.source.configs["model_index"][network(self.part)][1], **own}
        if network(self.part) == "vae":
            config |= recognition.vae(shapes)
        elif self.part == "unet" and (found := recognition.outline(shapes)) and found != recognition.of_config(own):
            if special := kinds.of_outline(found, recognition.known().values()):
                raise UnsupportedError(special.sentence(file))
            config |= next((architectures.configs(name)["unet"] for name in recognition.same(found)), {})
        stated = {each.field: each.value for each in statements.stated(file) if each.component == "scheduler"}
        return _Found(config, (file,), told, stated, original=True)


def _differences(part: str, source: Checkpoint, config: Config, schedule: Config) -> Iterator[tuple[str, str]]:
    """What the other parts could not work with, and how it shows."""
    own, kind = source.configs[network(part)], "text" if part.startswith("text_encoder") else network(part)
    ours = str(source.configs["model_index"][network(part)][1])
    theirs = str(config.get("_class_name") or next(iter(config.get("architectures") or ()), ours))  # transformers need not say
    allowed = _DECODERS if part in {"vae", "vae_decoder"} else (ours,)
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
