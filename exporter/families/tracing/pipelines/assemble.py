"""A pipeline of diffusers from a checkpoint's components, as its own `from_pretrained` would put them together."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import diffusers
import transformers
from torch import nn

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from engines.plugins import did_you_mean
from exporter.families.tracing.following.standins import real
from exporter.families.tracing.pictures import feature_extractors, ip_adapters
from exporter.families.tracing.pipelines import guarded, siblings
from exporter.families.tracing.pipelines.own_prior import divided
from exporter.families.tracing.pipelines.two_stages import staged
from exporter.families.tracing.texts import text_processors
from exporter.families.unets import tokens
from exporter.models import component_files, predictor_corrector, weights

if TYPE_CHECKING:
    from exporter.models.checkpoint import Checkpoint
    from exporter.part import Precision
    from exporter.recipe.schema import SamplerOptions


def kind_of(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 - a class of diffusers'
    """The pipeline's class: of those that start from a picture, the one that draws from text with the same networks.

    Raises:
        UnsupportedError: the installed diffusers has none of that name.
        MissingDependency: it has, for which a library is not installed.

    """
    name = checkpoint.configs["model_index"]["_class_name"]
    found = getattr(diffusers, name, None)
    if lacking := [each for each in getattr(found, "_backends", ()) if importlib.util.find_spec(each) is None]:
        told = f"{name} needs {' and '.join(lacking)}, and it is not installed.\n  pip install {' '.join(lacking)}"
        raise MissingDependency(lacking[0], "", told)
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise UnsupportedError(f"diffusers {diffusers.__version__} has no pipeline {name!r}.\n  A newer diffusers may know it.")
    kind = siblings.from_text(found, checkpoint.configs)
    return kind if checkpoint.ip_adapter is None else ip_adapters.adapted(kind)


def pipeline(checkpoint: Checkpoint, sampler: SamplerOptions, loaded: Sequence[str] | None, precision: Precision) -> Any:  # noqa: ANN401
    """Put the pipeline together; networks that are not `loaded` are on the meta device, None loads them all."""
    # diffusers' pipelines name image processors that this model has not, and transformers warns that they lack torchvision.
    transformers.logging.set_verbosity_error()
    with real():
        return divided(staged(_whole(checkpoint, sampler, loaded, precision)))


def _whole(checkpoint: Checkpoint, sampler: SamplerOptions, loaded: Sequence[str] | None, precision: Precision) -> Any:  # noqa: ANN401
    kind, index = kind_of(checkpoint), checkpoint.configs["model_index"]
    guarded.refuse(kind)
    takes = inspect.signature(kind.__init__).parameters
    parts: dict[str, Any] = {}
    for name in takes:
        entry = index.get(name)
        if name == "self" or entry is None:
            continue
        argument = takes[name].default is not inspect.Parameter.empty and name not in kind._optional_components  # noqa: SLF001
        if argument or not isinstance(entry, list):
            parts[name] = entry
        elif component_files.SCHEDULERS.fullmatch(name) and name in checkpoint.configs:
            own = name == "scheduler"
            parts[name] = scheduler(checkpoint, sampler) if own else _class(*entry).from_config(checkpoint.configs[name])
        elif name not in checkpoint.configs:
            _refuse_absent(checkpoint, kind, name, entry)
            parts[name] = None
        elif issubclass(_class(*entry), nn.Module) and not checkpoint.reads_texts(name):
            here = loaded is None or name in loaded
            parts[name] = checkpoint.module(name, precision) if here else _absent(checkpoint, name, precision)
        else:
            parts[name] = _plain(checkpoint, name, entry)
    needed = [name for name, about in takes.items() if about.default is about.empty and about.kind is about.POSITIONAL_OR_KEYWORD]
    missing = [name for name in needed if name not in {"self", *parts}]
    found = _made(kind, {**parts, **dict.fromkeys(missing)})
    found.set_progress_bar_config(disable=True)
    # Set afterwards: the constructor would rewrite fields of the scheduler's config that it deems outdated.
    found.scheduler = scheduler(checkpoint, sampler)
    return found


def _made(kind: Any, parts: dict[str, Any]) -> Any:  # noqa: ANN401 - a class of diffusers, and one of it
    """A pipeline of its components; raises UnsupportedError where diffusers lacks a library for it."""
    try:
        return kind(**parts)
    except NameError as error:  # diffusers leaves undefined what needs a library that is not there
        told = f"{kind.__name__} cannot be made here: diffusers has no {error.name} without a library that is not installed"
        raise UnsupportedError(f"{told}.\n  Of what prepares pictures for a text encoder that is torchvision.") from error


def _plain(checkpoint: Checkpoint, name: str, entry: Sequence[str]) -> Any:  # noqa: ANN401 - of either library
    """A component that is no network."""
    if checkpoint.reads_texts(name) and text_processors.is_processor(entry[-1]):
        return text_processors.load(entry[-1], checkpoint.folders[name])
    if entry[0] == "transformers" and feature_extractors.kind(entry[1]) is not None:
        return feature_extractors.load(entry[1], checkpoint.configs[name])
    if hasattr(_class(*entry), "from_config"):
        return _class(*entry).from_config(checkpoint.configs[name])
    if name in checkpoint.folders:
        return _class(*entry).from_pretrained(checkpoint.folders[name])
    return _spelling(checkpoint, name)


def _absent(checkpoint: Checkpoint, name: str, precision: Precision) -> nn.Module:
    """A network without memory, in the format of those that are there: of what it gives, a pipeline makes what these are handed.

    By torch's own method: that of diffusers' networks tells of weights to be kept in float32, and names none.
    """
    return nn.Module.to(checkpoint.skeleton(name).eval(), weights.DTYPES[precision])


def _refuse_absent(checkpoint: Checkpoint, kind: Any, name: str, entry: Sequence[str]) -> None:  # noqa: ANN401 - a class
    """Raise UnsupportedError where a component that the pipeline cannot do without is named, and is not there."""
    root = next((folder.parent for folder in checkpoint.folders.values()), None)
    wanted = all(entry) and weights.named(*entry) is not None and name not in kind._optional_components  # noqa: SLF001
    if not wanted or root is None or (root / name).is_dir():
        return
    raise UnsupportedError(
        f"{root / 'model_index.json'} names {name} (a {entry[1]}), and there is no folder {name}.\n  Copy it there from where "
        f"the model comes from. To draw without it, name there another pipeline than {kind.__name__}, and null for it."
    )


def _spelling(checkpoint: Checkpoint, name: str) -> Any:  # noqa: ANN401 - a tokenizer of transformers
    """A tokenizer that spells, of a model that has no vocabulary."""
    tower, config = checkpoint.configs[name.replace("tokenizer", "text_encoder")], checkpoint.configs[name]
    length = min(int(config.get("model_max_length", 77)), int(tower.get("max_position_embeddings", 77)))
    return tokens.spelling(config, int(tower.get("vocab_size", 49408)), length)


def scheduler(checkpoint: Checkpoint, sampler: SamplerOptions) -> Any:  # noqa: ANN401 - a diffusers scheduler
    """Build the recipe's scheduler: its class, with the model's own config and the recipe's changes."""
    config = checkpoint.configs["scheduler"]
    name = sampler.scheduler or config["_class_name"]
    found = predictor_corrector.stepped(getattr(diffusers, name, None))
    if found is None or not hasattr(found, "set_timesteps"):
        known = sorted(each for each in dir(diffusers) if each.endswith("Scheduler"))
        raise RecipeError(f"sampler.scheduler: diffusers has no scheduler named {name!r}{did_you_mean(name, known)}")
    return found.from_config({**config, **sampler.config})


def _class(library: str, name: str) -> Any:  # noqa: ANN401 - a class of either library
    found = weights.named(library, name)
    if found is None:
        raise UnsupportedError(f"{library} has no {name!r}.\n  A newer {library} may know it.")
    return found
