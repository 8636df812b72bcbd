"""One view of every source of a model: a diffusers folder, a hub id, a single .safetensors file, or random weights."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError, UnsupportedError
from engines.plugins import did_you_mean
from exporter.models import (
    architectures,
    base_model,
    component_files,
    config_types,
    hub,
    ip_adapter,
    kinds,
    leftovers,
    locate,
    lora,
    recognition,
    safetensors_header,
    statements,
)
from exporter.models.embeddings import Vectors
from exporter.models.ip_adapter import IpAdapter
from exporter.models.safetensors_header import read_json
from exporter.models.statements import Statement
from exporter.part import SHALLOW

if TYPE_CHECKING:
    from torch import nn

    from exporter.part import Precision
    from exporter.recipe.schema import ModelOptions

#: Changes when the same seed gives other random weights.
SCHEME = "uniform-1"
#: Libraries whose classes may be built; anything else would be code that comes with the model.
_LIBRARIES = ("diffusers", "transformers")
#: Words of a single file's metadata that the bundle keeps.
_TOLD = ("modelspec.title", "modelspec.architecture", "modelspec.resolution")
_LISTED = 8  # names in one message


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, or made up; nothing is loaded until a component is asked for.

    Attributes:
        configs: component → its config; `model_index`, `scheduler` and the tokenizers are among them.
        provenance: what the bundle says about where the model came from.
        files: network → its safetensors files; empty for random weights.
        folders: component → the folder that its config (for a tokenizer, its vocabulary) came from.
        seed: of random weights, else None.
        originals: networks whose file is not diffusers' own: it may hold several, or name its weights in the original layout.
        loras: fused into the networks that they change.
        embeddings: what the text encoders learn of further words, which their tokenizers then know.
        statements: what a single file says of its model, already in `configs`.
        notes: what of the source is left out, or said and not read; a sentence each.
        remade: networks that a pass made: they have a folder of their own, whatever the rest comes from.
        ip_adapter: by which the UNet reads a picture, too.

    """

    configs: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, str]
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    seed: int | None = None
    originals: frozenset[str] = frozenset()
    loras: tuple[lora.Lora, ...] = ()
    embeddings: tuple[Vectors, ...] = ()
    statements: tuple[Statement, ...] = ()
    notes: tuple[str, ...] = ()
    remade: frozenset[str] = frozenset()
    ip_adapter: IpAdapter | None = None

    def replacing(self, component: str, folder: Path) -> Checkpoint:
        """The same model with another network in one place, read from where `save_pretrained` wrote it.

        Half of a VAE has a place of its own, `vae_decoder` or `vae_encoder`, beside the `vae` that keeps the other half.
        """
        files = safetensors_header.files(folder)
        config = read_json(folder / "config.json")
        return replace(
            self,
            configs=placed(self.configs, component, config),
            files={**self.files, component: files},
            remade=self.remade | {component},
        )

    def digest(self, component: str) -> str:
        """SHA-256 over a component's config and weights (or seed and scheme), or over a tokenizer's folder.

        A network's covers its class and the pipeline's options too, and a text tower's its tokenizer, whose empty prompt the
        tower may have to know; and of every LoRA that changes the network the file and the scale.
        """
        config = {key: value for key, value in self.configs[component].items() if not key.startswith(("_name", "_diffusers"))}
        index = self.configs["model_index"]
        options = {key: value for key, value in index.items() if not isinstance(value, list) and not key.startswith("_")}
        total = hashlib.sha256(json.dumps([component, index.get(component), options, config], sort_keys=True).encode())
        if (tokenizer := component.replace("text_encoder", "tokenizer")) != component and tokenizer in self.configs:
            total.update(self.digest(tokenizer).encode())
        if self.reads_texts(component):
            files = tuple(file for file in sorted(self.folders[component].iterdir()) if file.is_file())
        elif self.seed is None:
            files = self.files.get(component, ())
        else:
            files = ()
            total.update(f"{SCHEME} {self.seed}".encode())
        for file in files:
            status = file.stat()
            total.update(f"{file.name} {_file_digest(file, status.st_size, status.st_mtime_ns)}".encode())
        for each in self.beside(component):
            total.update(self.digest(each).encode())
        for each in self.words(component.replace("tokenizer", "text_encoder")):
            status = each.file.stat()
            content = _file_digest(each.file, status.st_size, status.st_mtime_ns)
            total.update(f"word {each.word} {content} {each.key}".encode())
        if self.ip_adapter is not None and component == "unet":
            total.update(f"IP-Adapter {self.ip_adapter.digest}".encode())
        for change in self._changes(component):
            status = change.file.stat()
            content = _file_digest(change.file, status.st_size, status.st_mtime_ns)
            total.update(f"LoRA {content} {change.config} × {change.scale!r}".encode())
        return total.hexdigest()

    def named(self, component: str) -> Mapping[str, Any]:
        """A network's config with the name of its class, which may stand in the pipeline's index alone."""
        return {"_class_name": self.configs["model_index"][component][1], **self.configs[component]}

    def beside(self, component: str) -> tuple[str, ...]:
        """The further networks of a component that is several, as of several ControlNets at once."""
        return tuple(itertools.takewhile(self.configs.__contains__, component_files.further(component)))

    def reads_texts(self, component: str) -> bool:
        """Whether a component is no network, and there is a tokenizer in its folder, as in that of a processor."""
        inside = self.folders.get(component)
        return inside is not None and component_files.of(inside, component) == component_files.TOKENIZER

    def words(self, tower: str) -> tuple[Vectors, ...]:
        """What one text encoder learns of further words."""
        return tuple(each for each in self.embeddings if each.tower == tower)

    def _changes(self, component: str) -> list[lora.Lora]:
        return [each for each in self.loras if component in each.components and component not in self.remade]

    def module(self, component: str, precision: Precision = "fp32") -> nn.Module:
        """Build one network and fill it: in eval mode, on the CPU, without gradients, in one type throughout.

        Raises:
            UnsupportedError: weights missing, surplus, of another shape, or not finite; a class that cannot be built; a LoRA
                that does not fit.

        """
        if others := self.beside(component):
            from exporter.models import weights  # noqa: PLC0415 - torch; a plan needs configs alone

            networks = [self._plain(each, precision) for each in (component, *others)]
            return weights.joined(self.configs["model_index"][component], networks)
        if self.ip_adapter is not None and component == "unet":
            return self._adapted(self._unadapted.module(component, precision))
        if changes := self._changes(component):
            from exporter.models import lora_fuse, weights  # noqa: PLC0415 - torch; a plan needs configs alone

            # In float32, whatever comes of it: a change is often smaller than half precision's step.
            fused = lora_fuse.fuse(self._plain(component, "fp32"), component, changes, self.configs["unet"])
            return weights.cast(fused, precision, component)
        return self._plain(component, precision)

    def _adapted(self, unet: nn.Module) -> nn.Module:
        from exporter.models import ip_adapter_weights  # noqa: PLC0415 - torch; a plan needs configs alone

        return unet if self.ip_adapter is None else ip_adapter_weights.adapted(unet, self.ip_adapter)

    @property
    def _unadapted(self) -> Checkpoint:
        return replace(self, ip_adapter=None, configs={**self.configs, "unet": ip_adapter.without(self.configs["unet"])})

    def _plain(self, component: str, precision: Precision) -> nn.Module:
        from exporter.models import single_file, weights  # noqa: PLC0415 - torch; a plan needs configs alone

        skeleton = self.skeleton(component, computed=True, alone=True)
        if self.seed is not None and component not in self.remade:
            return weights.make_up(skeleton, self.seed, precision, component)
        files = self.files.get(component, ())
        for file in files:
            safetensors_header.shapes(file)  # a truncated file is refused before memory is mapped
        if component in self.originals and component not in self.remade:
            tensors = single_file.component(files[0], component, skeleton, self.configs[component])
            return weights.put(skeleton, tensors, precision, component)
        return weights.read(skeleton, files, precision, component)

    def skeleton(self, component: str, *, computed: bool = False, alone: bool = False) -> nn.Module:
        """Build one network on the meta device: shapes and names, no memory but for what its constructor computes.

        `alone`: of several under one name the first.
        """
        from exporter.models import weights  # noqa: PLC0415 - torch; a plan needs configs alone

        if self.ip_adapter is not None and component == "unet":
            return self._adapted(self._unadapted.skeleton(component, computed=computed, alone=alone))
        config, entry, others = self.configs[component], self.configs["model_index"].get(component), self.beside(component)
        if others and entry is not None and not alone:
            return weights.joined(entry, [self.skeleton(each, alone=True) for each in (component, *others)])
        library, name = ("diffusers", config["_class_name"]) if others or entry is None else entry
        return weights.skeleton(library, name, config, computed=computed)


def network(part: str) -> str:
    """Component of a source that holds a part's weights: of a VAE's halves the VAE, of a shallow UNet the whole one."""
    return "vae" if part.startswith("vae_") else part.removesuffix(SHALLOW)


def placed(configs: Mapping[str, Mapping[str, Any]], component: str, config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Configs with another network's in the place of a component, or of half a VAE, and the index that names its class."""
    config_types.refuse_types(network(component), config, "the network that comes into its place")
    index = configs["model_index"]
    library, name = index.get(component) or index[network(component)]
    return {**configs, component: config, "model_index": {**index, component: [library, config.get("_class_name", name)]}}


def find(model: ModelOptions, root: Path) -> Checkpoint:
    """Find the model itself, where `locate` looks. Reads configs and file names only, and imports no torch.

    Raises:
        RecipeError: nothing is there under that name, or weights are asked of an architecture.
        UnsupportedError: pickles, custom code, a damaged file, a hub out of reach.

    """
    seed = model.seed if model.weights == "random" else None
    place = locate.find(model.source, root, "model.source", architectures.names())
    if place is not None and place.is_dir():
        return _folder(place, {"source": model.source}, seed, model.variant)
    if place is not None:
        return _single(place, model, seed)
    if model.source in architectures.names():
        if seed is None:
            passed = locate.passed_over(model.source, root)
            raise RecipeError(
                f"model.source: {model.source!r} is an architecture, which has no weights of its own{passed}; "
                f"set model.weights: random, or model.source: {architectures.hub(model.source) or 'a folder or hub id'}"
            )
        return _made_up(model.source, seed)
    found = hub.fetch(model.source, model.revision, weights=seed is None, variant=model.variant)
    checkpoint = _folder(found.place, {"source": model.source, "revision": found.commit}, seed, model.variant)
    return replace(checkpoint, notes=(*checkpoint.notes, *found.notes))


def _made_up(name: str, seed: int) -> Checkpoint:
    provenance = {"source": name, "weights": "random", "seed": str(seed), "scheme": SCHEME}
    return Checkpoint(_trusted(architectures.configs(name), name), provenance, seed=seed)


def _folder(folder: Path, provenance: dict[str, str], seed: int | None, variant: str | None) -> Checkpoint:
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        safetensors_header.refuse_pickle(str(folder), [file.name for file in folder.iterdir()])
        raise UnsupportedError(
            f"{folder} has no model_index.json, so it is not a diffusers pipeline.\n"
            "  Name the folder that save_pretrained wrote, or a single .safetensors file; of a network alone a model.base too."
        )
    index = component_files.of_diffusers(read_json(index_file))
    configs: dict[str, Mapping[str, Any]] = {"model_index": index}
    files: dict[str, tuple[Path, ...]] = {}
    folders: dict[str, Path] = {}
    read = [name for name in index if component_files.is_read(index, name, folder, _LIBRARIES)]
    config_types.refuse_index(index, read, str(folder))
    if kind := kinds.of_index(index):
        raise UnsupportedError(kind.sentence(folder))
    for name in read:
        if not isinstance(index[name], list) or index[name][1] is None:
            continue
        for inside in (folder / name, *itertools.takewhile(Path.is_dir, map(folder.joinpath, component_files.further(name)))):
            folders[inside.name] = inside
            file = component_files.of(inside, name)
            configs[inside.name] = read_json(inside / file)
            if file == "config.json" and seed is None:
                files[inside.name] = safetensors_header.files(inside, variant)
    if "scheduler" not in configs:
        raise UnsupportedError(
            f"{index_file} names no scheduler, so nothing says what noise this model was trained on, and diffusers cannot load "
            "it either.\n  Copy the scheduler folder of the model that it was made from, and name it in model_index.json: "
            '"scheduler": ["diffusers", "EulerDiscreteScheduler"].'
        )
    kind_of_scheduler, notes = leftovers.scheduler(index["scheduler"][1], configs["scheduler"])
    configs["scheduler"] = {**configs["scheduler"], "_class_name": kind_of_scheduler}
    if seed is not None:
        provenance |= {"weights": "random", "seed": str(seed), "scheme": SCHEME}
    return Checkpoint(_trusted(configs, str(folder)), provenance, files, folders, seed, notes=notes)


def _single(file: Path, model: ModelOptions, seed: int | None) -> Checkpoint:
    if file.suffix != ".safetensors":
        safetensors_header.refuse_pickle(str(file), [file.name])
        raise UnsupportedError(
            f"{file} is not a .safetensors file.\n  A model is a diffusers folder, or a single .safetensors file."
        )
    if model.architecture and model.architecture not in (known := architectures.names()):
        raise RecipeError(
            f"model.architecture: no architecture named {model.architecture!r}{did_you_mean(model.architecture, known)}"
        )
    header = safetensors_header.header(file)
    kind = kinds.of_file(header.shapes, header.metadata, recognition.known().values())
    if kind is not None and not (kind in {kinds.NO_VAE, kinds.HALF_VAE} and (model.vae or seed is not None)):
        raise UnsupportedError(kind.sentence(file) + base_model.told(kind, header.shapes, model.architecture))
    said = statements.stated(file)
    name = model.architecture or _recognised(file, said)
    configs = statements.applied(_trusted(architectures.configs(name), name), said)
    configs = {**configs, "vae": {**configs["vae"], **recognition.vae_differences(header.shapes, configs["vae"])}}
    files = {part: (file,) for part in configs if component_files.NETWORKS.fullmatch(part)}
    if kind is None and seed is None and (lacks := sorted(files.keys() - leftovers.networks(header.shapes, files))):
        raise UnsupportedError(f"{file} has no {' and no '.join(lacks)}, which a model of {name}'s kind has.\n  {kinds.UNET.way}")
    came: tuple[str, ...] = ()
    folders = {part: file.parent / part for part in configs if component_files.TOKENIZERS.fullmatch(part)}
    if any(not folder.is_dir() for folder in folders.values()):
        source = architectures.hub(name)
        if source is None:
            raise UnsupportedError(
                f"{file} holds weights and no tokenizer.\n  Put the folder{'s' * (len(folders) > 1)} "
                f"{' and '.join(folders)} of a diffusers pipeline beside it."
            )
        try:
            fetched = hub.fetch(source, None, weights=False, only=folders)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"{file} holds weights and no tokenizer, and {source}, which has one, is out of reach.\n  Put the "
                f"folder{'s' * (len(folders) > 1)} {' and '.join(folders)} of a diffusers pipeline beside the file."
            ) from error
        folders, came = {part: fetched.place / part for part in folders}, fetched.notes
    words = header.metadata
    provenance = {"source": model.source, "architecture": name} | {key: words[key] for key in _TOLD if words.get(key)}
    if said:
        provenance["says"] = statements.told(said)
    left = leftovers.of_file(file.name, header.shapes, files)
    notes = tuple(filter(None, [*came, left, *statements.remarks(words, file.name, configs)]))
    return Checkpoint(configs, provenance, files, folders, seed, originals=frozenset(files), statements=said, notes=notes)


def _recognised(file: Path, said: Iterable[Statement]) -> str:
    """Name the architecture of a single file by the shapes in its UNet, and by what the file says that it predicts."""
    found = recognition.outline(safetensors_header.shapes(file))
    same = recognition.same(found) if found else []
    told = {each.value for each in said if each.field == "prediction_type"}
    configs = {name: architectures.configs(name) for name in same}
    predicts = {name: configs[name]["scheduler"].get("prediction_type") for name in same}
    if len(told) == 1:
        same = [name for name in same if predicts[name] in told] or same
    if len({(predicts[name], len(configs[name])) for name in same}) == 1:
        # Those that others refer to are the originals; the rest differ by sampler alone, which is the recipe's business.
        return next((name for name in same if "$use" not in architectures.read(name)["unet"]), same[0])
    if same:
        listed = f"{' and '.join(same)} have the same UNet and read its answer differently"
    elif found:
        name, differs = recognition.nearest(found)
        listed = f"the nearest is {name}, whose UNet has other {' and '.join(differs)}"
    else:
        begins = ", ".join(sorted({name.partition(".")[0] for name in safetensors_header.shapes(file)})[:_LISTED]) or "nothing"
        raise UnsupportedError(
            f"{file} is no text-to-image model that is known here: it has no UNet with a first convolution; its weights begin "
            f"with {begins}.\n  Take a whole model's file, or a diffusers folder or hub id."
        )
    raise UnsupportedError(
        f"{file} does not tell its architecture: {listed}.\n"
        f"  Set model.architecture to one of: {', '.join(same or architectures.names())}; or convert the file where its "
        "config is known: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)."
    )


def _trusted(configs: Mapping[str, Mapping[str, Any]], where: str) -> Mapping[str, Mapping[str, Any]]:
    index = configs["model_index"]
    if not isinstance(index.get("_class_name"), str):
        raise UnsupportedError(
            f"{where}: its pipeline {index.get('_class_name')!r} is code that comes with the model, and none is run.\n"
            "  Take a model that works without trust_remote_code."
        )
    for name in configs:
        config_types.refuse_types(name, configs[name], where)
        library = index[name][0] if name in index else "diffusers"
        own = name in index and index[name][1] in component_files.BESIDE  # as code of diffusers that is run in the model's place
        if library not in _LIBRARIES or ("auto_map" in configs[name] and not own):
            raise UnsupportedError(
                f"{where}: {name} is of {library!r}, code that comes with the model, and none is run.\n"
                f"  Components must be classes of {' or '.join(_LIBRARIES)}."
            )
    return configs


@cache
def _file_digest(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
