"""One view of every source of a model: a diffusers folder, a hub id, a single .safetensors file, or random weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import RecipeError, UnsupportedError
from engines.plugins import did_you_mean
from exporter.models import architectures, hub, lora, safetensors_header

if TYPE_CHECKING:
    from torch import nn

    from exporter.part import Precision
    from exporter.recipe.schema import Model

#: Changes when the same seed gives other random weights.
SCHEME = "uniform-1"
#: Libraries whose classes may be built; anything else would be code that comes with the model.
_LIBRARIES = ("diffusers", "transformers")
_NETWORKS = re.compile(r"unet|transformer|vae|text_encoder(_\d)?")
_TOKENIZERS = re.compile(r"tokenizer(_\d)?")


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, or made up; nothing is loaded until a component is asked for.

    Attributes:
        configs: component → its config; `model_index`, `scheduler` and the tokenizers are among them.
        provenance: what the bundle says about where the model came from.
        files: network → its safetensors files; empty for random weights.
        folders: component → the folder that its config (for a tokenizer, its vocabulary) came from.
        seed: of random weights, else None.
        single: whether `files` is one file that holds every network.
        loras: fused into the networks that they change.
        remade: networks that a pass made: they have a folder of their own, whatever the rest comes from.

    """

    configs: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, str]
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    seed: int | None = None
    single: bool = False
    loras: tuple[lora.Lora, ...] = ()
    remade: frozenset[str] = frozenset()

    def having(self, component: str, folder: Path) -> Checkpoint:
        """The same model with another network in one place, read from where `save_pretrained` wrote it.

        Half of a VAE has a place of its own, `vae_decoder` or `vae_encoder`, beside the `vae` that keeps the other half.
        """
        files = tuple(folder / name for name in safetensors_header.chosen((file.name for file in folder.iterdir()), str(folder)))
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
        if _TOKENIZERS.fullmatch(component) and component in self.folders:
            files = tuple(file for file in sorted(self.folders[component].iterdir()) if file.is_file())
        elif self.seed is None:
            files = self.files.get(component, ())
        else:
            files = ()
            total.update(f"{SCHEME} {self.seed}".encode())
        for file in files:
            status = file.stat()
            total.update(f"{file.name} {_file_digest(file, status.st_size, status.st_mtime_ns)}".encode())
        for change in self._changes(component):
            status = change.file.stat()
            content = _file_digest(change.file, status.st_size, status.st_mtime_ns)
            total.update(f"LoRA {content} × {change.scale!r}".encode())
        return total.hexdigest()

    def named(self, component: str) -> Mapping[str, Any]:
        """A network's config with the name of its class, which may stand in the pipeline's index alone."""
        return {"_class_name": self.configs["model_index"][component][1], **self.configs[component]}

    def _changes(self, component: str) -> list[lora.Lora]:
        return [each for each in self.loras if component in each.components and component not in self.remade]

    def module(self, component: str, precision: Precision = "fp32") -> nn.Module:
        """Build one network and fill it: in eval mode, on the CPU, without gradients, in one type throughout.

        Raises:
            UnsupportedError: weights missing, surplus, of another shape, or not finite; a class that cannot be built; a LoRA
                that does not fit.

        """
        if changes := self._changes(component):
            from exporter.models import lora_fuse, weights  # noqa: PLC0415 - torch; a plan needs configs alone

            # In float32, whatever comes of it: a change is often smaller than half precision's step.
            fused = lora_fuse.fuse(self._plain(component, "fp32"), component, changes, self.configs["unet"])
            return weights.cast(fused, precision, component)
        return self._plain(component, precision)

    def _plain(self, component: str, precision: Precision) -> nn.Module:
        from exporter.models import single_file, weights  # noqa: PLC0415 - torch; a plan needs configs alone

        skeleton = self.skeleton(component)
        if self.seed is not None and component not in self.remade:
            return weights.make_up(skeleton, self.seed, precision, component)
        files = self.files.get(component, ())
        for file in files:
            safetensors_header.shapes(file)  # a truncated file is refused before memory is mapped
        if self.single and component not in self.remade:
            tensors = single_file.component(files[0], component, skeleton, self.configs[component])
            return weights.put(skeleton, tensors, precision, component)
        return weights.read(skeleton, files, precision, component)

    def skeleton(self, component: str) -> nn.Module:
        """Build one network on the meta device: shapes and names, no memory."""
        from exporter.models import weights  # noqa: PLC0415 - torch; a plan needs configs alone

        library, name = self.configs["model_index"][component]
        return weights.skeleton(library, name, self.configs[component])


def network(part: str) -> str:
    """Component of a source that holds a part's weights: encoder and decoder are halves of one VAE."""
    return "vae" if part.startswith("vae_") else part


def placed(configs: Mapping[str, Mapping[str, Any]], component: str, config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Configs with another network's in the place of a component, or of half a VAE, and the index that names its class."""
    index = configs["model_index"]
    library, name = index.get(component) or index[network(component)]
    return {**configs, component: config, "model_index": {**index, component: [library, config.get("_class_name", name)]}}


def resolve(model: Model, root: Path) -> Checkpoint:
    """Find a recipe's model and its LoRAs. Reads configs and file names only, and imports no torch.

    A source is looked for beside the recipe (`root`), then in the working directory, then among the architectures, then on
    the hub.

    Raises:
        RecipeError: nothing is there under that name, or weights are asked of an architecture.
        UnsupportedError: pickles, custom code, a damaged file, a hub out of reach.

    """
    found = _resolve(model, root)
    changes = lora.resolve(model, root, found.configs)
    named = {f"lora {number}": change.provenance for number, change in enumerate(changes, 1)}
    return replace(found, loras=changes, provenance={**found.provenance, **named}) if changes else found


def _resolve(model: Model, root: Path) -> Checkpoint:
    seed = model.seed if model.weights == "random" else None
    for place in (root / Path(model.source).expanduser(), Path(model.source).expanduser()):
        if place.is_dir():
            return _folder(place, {"source": model.source}, seed)
        if place.is_file():
            return _single(place, model, seed)
    if model.source in architectures.names():
        if seed is None:
            raise RecipeError(
                f"model.source: {model.source!r} is an architecture, which has no weights of its own; "
                f"set model.weights: random, or model.source: {architectures.hub(model.source) or 'a folder or hub id'}"
            )
        return _made_up(model.source, seed)
    if not hub.ID.fullmatch(model.source) or model.source.endswith((".safetensors", ".ckpt")):
        raise RecipeError(
            f"model.source: {model.source!r} is neither a file or folder (looked in {root} and {Path.cwd()}), nor a hub id "
            f"(owner/name), nor an architecture{did_you_mean(model.source, architectures.names())}"
        )
    folder, commit = hub.fetch(model.source, model.revision, weights=seed is None)
    return _folder(folder, {"source": model.source, "revision": commit}, seed)


def _made_up(name: str, seed: int) -> Checkpoint:
    provenance = {"source": name, "weights": "random", "seed": str(seed), "scheme": SCHEME}
    return Checkpoint(_trusted(architectures.configs(name), name), provenance, seed=seed)


def _folder(folder: Path, provenance: dict[str, str], seed: int | None) -> Checkpoint:
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        safetensors_header.refuse_pickle(str(folder), [file.name for file in folder.iterdir()])
        raise UnsupportedError(
            f"{folder} has no model_index.json, so it is not a diffusers pipeline.\n"
            "  Name the folder that save_pretrained wrote, or a single .safetensors file."
        )
    index = read_json(index_file)
    configs: dict[str, Mapping[str, Any]] = {"model_index": index}
    files: dict[str, tuple[Path, ...]] = {}
    folders: dict[str, Path] = {}
    for name in (n for n in index if _NETWORKS.fullmatch(n) or _TOKENIZERS.fullmatch(n) or n == "scheduler"):
        if not isinstance(index[name], list) or index[name][1] is None:
            continue
        inside = folders[name] = folder / name
        if _TOKENIZERS.fullmatch(name):
            configs[name] = read_json(inside / "tokenizer_config.json")
        elif name == "scheduler":
            configs[name] = read_json(inside / "scheduler_config.json")
        else:
            configs[name] = read_json(inside / "config.json")
            if seed is None:
                files[name] = tuple(
                    inside / file for file in safetensors_header.chosen((f.name for f in inside.iterdir()), str(inside))
                )
    if seed is not None:
        provenance |= {"weights": "random", "seed": str(seed), "scheme": SCHEME}
    return Checkpoint(_trusted(configs, str(folder)), provenance, files, folders, seed)


def _single(file: Path, model: Model, seed: int | None) -> Checkpoint:
    if file.suffix != ".safetensors":
        safetensors_header.refuse_pickle(str(file), [file.name])
        raise UnsupportedError(
            f"{file} is not a .safetensors file.\n  A model is a diffusers folder, or a single .safetensors file."
        )
    if model.architecture and model.architecture not in (known := architectures.names()):
        raise RecipeError(
            f"model.architecture: no architecture named {model.architecture!r}{did_you_mean(model.architecture, known)}"
        )
    name = model.architecture or _recognised(file)
    configs = _trusted(architectures.configs(name), name)
    folders = {part: file.parent / part for part in configs if _TOKENIZERS.fullmatch(part)}
    if any(not folder.is_dir() for folder in folders.values()):
        source = architectures.hub(name)
        if source is None:
            raise UnsupportedError(
                f"{file} holds weights and no tokenizer.\n  Put the folder{'s' * (len(folders) > 1)} "
                f"{' and '.join(folders)} of a diffusers pipeline beside it."
            )
        try:
            folder, _ = hub.fetch(source, None, weights=False, only=folders)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"{file} holds weights and no tokenizer, and {source}, which has one, is out of reach.\n  Put the "
                f"folder{'s' * (len(folders) > 1)} {' and '.join(folders)} of a diffusers pipeline beside the file."
            ) from error
        folders = {part: folder / part for part in folders}
    provenance = {"source": model.source, "architecture": name}
    files = {part: (file,) for part in configs if _NETWORKS.fullmatch(part)}
    return Checkpoint(configs, provenance, files, folders, seed, single=True)


def _recognised(file: Path) -> str:
    """Name the architecture of a single file by the exact size of its UNet."""
    shapes = safetensors_header.shapes(file)
    count = safetensors_header.elements(shapes, "model.diffusion_model.") or safetensors_header.elements(shapes, "unet.")
    same = [name for name in architectures.names() if architectures.parameters(name).get("unet") == count]
    kinds = {
        json.dumps([architectures.configs(name)["scheduler"].get("prediction_type"), len(architectures.configs(name))])
        for name in same
    }
    if len(kinds) != 1:
        listed = (
            f"these have one of that size: {', '.join(same)}"
            if same
            else f"none known has; there are: {', '.join(architectures.names())}"
        )
        raise UnsupportedError(
            f"{file} does not tell its architecture: its UNet has {count:,} parameters, and {listed}.\n"
            "  Set model.architecture, or convert the file to a diffusers folder."
        )
    # Those that others refer to are the originals; the rest differ by sampler alone, which is the recipe's business.
    return next((name for name in same if "$use" not in architectures.read(name)["unet"]), same[0])


def _trusted(configs: Mapping[str, Mapping[str, Any]], where: str) -> Mapping[str, Mapping[str, Any]]:
    index = configs["model_index"]
    if not isinstance(index.get("_class_name"), str):
        raise UnsupportedError(
            f"{where}: its pipeline {index.get('_class_name')!r} is code that comes with the model, and none is run.\n"
            "  Take a model that works without trust_remote_code."
        )
    for name in configs:
        library = index[name][0] if name in index else "diffusers"
        if library not in _LIBRARIES or "auto_map" in configs[name]:
            raise UnsupportedError(
                f"{where}: {name} is of {library!r}, code that comes with the model, and none is run.\n"
                f"  Components must be classes of {' or '.join(_LIBRARIES)}."
            )
    return configs


def read_json(file: Path) -> dict[str, Any]:
    """Read one config.

    Raises:
        UnsupportedError: it is not there, or not JSON.

    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnsupportedError(
            f"{file} cannot be read: {error.strerror}.\n  The folder is not a whole diffusers pipeline."
        ) from error
    except ValueError as error:
        raise UnsupportedError(f"{file} is not JSON: {error}.\n  Download or copy it again.") from error


@cache
def _file_digest(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
