"""Plans of a published architecture with random weights, which load nothing: no torch, no network, no file."""

from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan

RECIPE = """
model: {source: sd-v1-5, weights: random}
sampler: {scheduler: EulerDiscreteScheduler, config: {timestep_spacing: trailing}, steps: [2, 4],
          guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [512, 512, 768], width: [256, 512, 768], batch: [1, 1, 2]}
checks: {prompts: [a red circle]}
"""


def plan(*overrides, text=RECIPE):
    return Plan(Recipe.parse(text, "planned", overrides=overrides))


def names(stages):
    return [f"{stage.verb} {stage.subject}" for stage in stages]


def changed(one, other):
    """Names of stages whose keys differ, or that only one of two plans has."""
    first, second = ({f"{s.verb} {s.subject}": s.key.digest for s in each.stages} for each in (one, other))
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
