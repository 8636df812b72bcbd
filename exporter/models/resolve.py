"""What a recipe names as its model: the source, with another VAE, LoRAs and an IP-Adapter where it asks for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engines.errors import RecipeError
from exporter.models import embeddings, lora
from exporter.models.checkpoint import Checkpoint, find
from exporter.models.compatibility import with_base, with_vae
from exporter.models.ip_adapter_source import with_ip_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.recipe.schema import ModelOptions


def resolve(model: ModelOptions, root: Path) -> Checkpoint:
    """Find a recipe's model with all that it takes from elsewhere. Reads configs and file names only, and imports no torch.

    Raises:
        RecipeError, UnsupportedError: as for `find`, `with_base`, `with_vae`, `lora.resolve`, `embeddings.resolve` and
            `with_ip_adapter`.

    """
    if model.base is None:
        found = find(model, root)
    else:
        found = with_base(find(model.model_copy(update={"source": model.base, "revision": None}), root), model, root)
    _refuse_variant(model, found)
    if model.vae is not None:
        found = with_vae(found, model, root)
    if model.ip_adapter is not None:
        found = with_ip_adapter(found, model, model.ip_adapter, root)
    changes = lora.resolve(model, root, found.configs)
    named = {f"lora {number}": change.provenance for number, change in enumerate(changes, 1)}
    notes = (*found.notes, *(note for change in changes for note in change.notes))
    learned = embeddings.resolve(model, root, found.configs, [change.file for change in changes])
    named |= {f"embedding {number}": told for number, told in enumerate(learned.provenance, 1)}
    return replace(
        found,
        loras=changes,
        embeddings=learned.vectors,
        provenance={**found.provenance, **named},
        notes=(*notes, *learned.notes),
    )


def _refuse_variant(model: ModelOptions, found: Checkpoint) -> None:
    """Raise RecipeError for a variant that no file of the model is of."""
    names = [file.name for files in found.files.values() for file in files]
    if model.variant and found.seed is None and not any(model.variant in name for name in names):
        where = f"{model.source} and {model.base}" if model.base else model.source
        raise RecipeError(
            f"model.variant: no component of {where} has weights of the variant {model.variant!r}; leave the line out"
        )
