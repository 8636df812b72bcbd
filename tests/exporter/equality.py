"""Does a wrapped network equal what the diffusers pipeline does with the same inputs? Shared by the families' tests."""

from pathlib import Path

import numpy as np
import torch

from engines.errors import RecipeError
from exporter.models.resolve import resolve
from exporter.recipe.schema import Component, GuidanceOptions, ModelOptions, Recipe, SamplerOptions, Shapes
from exporter.reference.part_outputs import measure

#: Relative error that rounding in another order may cause in float32: at most 3e-6 seen on these models.
ROUNDING = 2e-5
PROMPTS = ["a red circle on the blue square", "!!"]
NEGATIVES = ["the ugly", "blurry, the red"]


def recipe(source: Path | str, mode: str = "classifier_free", *, components: tuple[str, ...] = (), **fields) -> Recipe:
    """A recipe for a tiny model; sizes are multiples of 16 px."""
    return Recipe(
        model=ModelOptions(source=str(source), **fields.pop("model", {})),
        sampler=fields.pop("sampler", None)
        or SamplerOptions(steps=(2,), guidance=GuidanceOptions(mode=mode, scale=None if mode == "none" else 3.0)),
        shapes=fields.pop("shapes", Shapes(height=(32, 48, 64), width=(32, 64, 64), batch=(1, 1, 2))),
        components=dict.fromkeys(components, Component()),
        **fields,
    )


def family(cls, source: Path, mode: str = "classifier_free", **fields):
    """A family over a model on disk."""
    made = recipe(source, mode, **fields)
    return cls(resolve(made.model, Path()), made)


def problems(cls, source: Path, mode: str = "classifier_free", **fields) -> str:
    """Text of the RecipeError that the family raises."""
    try:
        family(cls, source, mode, **fields)
    except RecipeError as error:
        return "\n".join(error.problems)
    return ""


def ids(tokenizer, prompts: list[list[str]], length: int = 77) -> torch.Tensor:
    """(batch, branches, length) of ids, as the pipelines tokenize."""
    rows = [tokenizer(row, padding="max_length", max_length=length, truncation=True).input_ids for row in prompts]
    return torch.tensor(rows)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to rounding, alive, and of one shape."""
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert expected.std() > 1e-3, "a dead network proves nothing"
    error = (found - expected).norm() / expected.norm()
    assert error < ROUNDING, f"relative error {error:.1e}"


def answers(made, recording) -> None:
    """Every part of a family gives what its source gave, alive, in every case that was recorded."""
    for part in made.roles:
        for case in measure(made.part(part, "fp32"), recording.cases[part]):
            for port, wanted in case.source.items():
                assert wanted.std() > 1e-4, "a dead network proves nothing"
                error = np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted)
                assert error < ROUNDING, f"{part}, {case.label}: {port} {error:.1e}"


def latents(channels: int = 4, *, height: int = 8, width: int = 12, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Standard normal, not square."""
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal((batch, channels, height, width), dtype=np.float32)
    return torch.from_numpy(noise)
