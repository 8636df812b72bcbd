"""A bundle's source model as diffusers runs it, to be timed beside the bundle: eager or compiled by torch, on the same noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import Bundle
from engines.errors import MissingDependency, RecipeError, UnsupportedError
from exporter.bench.stopwatch import Stopwatch
from exporter.models import locate
from exporter.recipe import shipped

if TYPE_CHECKING:
    from PIL import Image

    from engines.samplers import Draw
    from exporter.families import Family
    from exporter.recipe.schema import Recipe

#: Name → type of the numbers, and whether torch compiles the networks.
KINDS: Mapping[str, tuple[str, bool]] = {
    "diffusers": ("float32", False),
    "diffusers-bf16": ("bfloat16", False),
    "diffusers-compile": ("float32", True),
}
#: How many folders above a bundle its source is looked for in, and in the `recipes` of each.
_ABOVE = 3
_SIZES = ("height", "width")


class Baseline:
    """diffusers' pipeline of the source model, on the processor.

    Compiled, every network goes through `torch.compile` with its own defaults but for static shapes.

    Attributes:
        library: what runs it, with its version.

    Raises:
        MissingDependency: torch is absent.
        UnsupportedError: the source model is not on this machine; the text says where it was looked for.

    """

    def __init__(self, bundle: Bundle, kind: str, watch: Stopwatch, root: Path | None = None) -> None:
        try:
            import torch  # noqa: PLC0415 - a bundle is timed without it
        except ModuleNotFoundError as error:
            raise MissingDependency("torch", "compile") from error
        from exporter.schedulers.loop import InjectedNoise  # noqa: PLC0415 - torch

        self.library = f"torch {torch.__version__}"
        dtype, compiled = KINDS[kind]
        recipe, family = source(bundle, root)
        self._recipe, self._dtype, self._dice = recipe, getattr(torch, dtype), InjectedNoise
        self._tensor: Callable[[Any], torch.Tensor] = torch.from_numpy
        reference = family.reference()
        self._pipeline = reference.pipeline
        for network in self._pipeline.components.values():
            if isinstance(network, torch.nn.Module):
                torch.nn.Module.to(network, self._dtype)  # diffusers' own `to` warns of parts that these models have not
        for name, (owner, method) in reference.calls.items():
            if (role := family.roles[name]) == "encoder":
                continue
            function = getattr(owner, method)
            setattr(owner, method, watch.watch(role, torch.compile(function, dynamic=False) if compiled else function))

    def draw(self, texts: Sequence[str], noise: Draw | None, **wishes: Any) -> list[Image.Image]:  # noqa: ANN401 - diffusers'
        """Make one picture per text.

        Args:
            texts: the prompts.
            noise: what the bundle's sampler would draw; None lets torch draw its own.
            wishes: steps, height, width, guidance_scale (None where the model takes none).

        """
        from exporter.families.tracing.pipelines.call import as_taken  # noqa: PLC0415 - torch
        from exporter.families.tracing.steps.own_grid import own_grid  # noqa: PLC0415

        scale = wishes["guidance_scale"]
        grid = own_grid(self._pipeline, self._recipe.sampler.asked(wishes["steps"]))
        with self._fed(noise), grid as asked:
            return self._pipeline(
                list(texts),
                **as_taken(self._pipeline, self._recipe.model.call),
                **asked,
                **({"latents": self._tensor(noise()).to(self._dtype)} if noise else {}),
                **{name: wishes[name] for name in _SIZES},
                num_inference_steps=wishes["steps"],
                # diffusers switches guidance off at 1 and below; a model without guidance runs like that.
                guidance_scale=1.0 if scale is None else scale,
            ).images

    @contextmanager
    def _fed(self, noise: Draw | None) -> Iterator[None]:
        """Within it, the scheduler steps as the recipe says, and what it draws are the next draws of `noise`."""
        scheduler = self._pipeline.scheduler
        original = scheduler.step
        drawn = None if noise is None else lambda _shape: self._tensor(noise())

        def step(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - diffusers' own signature
            wanted = kwargs | self._recipe.sampler.step
            if drawn is None:
                return original(*args, **wanted)
            with self._dice(drawn):
                return original(*args, **wanted)

        scheduler.step = step
        try:
            yield
        finally:
            del scheduler.step


def source(bundle: Bundle, root: Path | None = None) -> tuple[Recipe, Family]:
    """The recipe that a bundle keeps, and the family of its source model.

    A source that is a path counts from the recipe's folder, which the bundle does not know: unless it is given as `root`, the
    working directory, the folders above the bundle, the folder `recipes` in each of these, and the recipes that come with the
    package are looked in.

    Raises:
        UnsupportedError: it is in none of them, and nowhere else either.

    """
    from exporter.families import claim  # noqa: PLC0415 - with load and recipe, what a bundle alone is timed without
    from exporter.models.resolve import resolve  # noqa: PLC0415
    from exporter.recipe.schema import Recipe  # noqa: PLC0415

    text, name = bundle.manifest.recipe, bundle.manifest.name
    model = Recipe.parse(text, name).model
    near = [Path.cwd(), *bundle.folder.resolve().parents[:_ABOVE]]
    roots = [root] if root else [*(place for folder in near for place in (folder, folder / "recipes")), shipped.folder()]
    # A bundle has its recipe's name, which is often the source's as well: bundles/demo is not the source of bundles/demo.
    holding = (place for place in roots if locate.holds_model(locate.candidates(model.source, place)[0]))
    root = next(holding, root or Path.cwd())
    recipe = Recipe.parse(text, name, root)
    try:
        return recipe, claim(resolve(recipe.model, root), recipe)
    except RecipeError as error:
        looked = ", ".join(dict.fromkeys(map(str, roots)))
        raise UnsupportedError(
            f"diffusers needs the source model of {bundle.folder}, and it was not found here:\n  {error.problems[0]}\n"
            f"  A path is looked for in {looked}. Run this in the folder of the bundle's recipe."
        ) from error


def main() -> None:
    """Draw one picture in a process of its own: bundle, kind, prompt, steps, PNG."""
    folder, kind, prompt, steps, path = sys.argv[1:]
    manifest = (bundle := Bundle.open(folder)).manifest
    size = {"height": manifest.defaults.height, "width": manifest.defaults.width}
    baseline = Baseline(bundle, kind, Stopwatch())
    (image,) = baseline.draw([prompt], None, steps=int(steps), guidance_scale=manifest.guidance.scale, **size)
    image.save(path)
