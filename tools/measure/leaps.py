"""Tells which step of a few-step student loses pictures: its guided teacher makes some of the steps in its place.

    python -m tools.measure.leaps recipes/demo-trajectory-4step.yaml --count 250                                 # as distilled
    python -m tools.measure.leaps recipes/demo-trajectory-4step.yaml --unet DIR --leaps 4,4,4,4 --rows ssss --rows ssst

For a recipe whose last pass is ``trajectory``. Each row is who makes each of the student's steps, ``s`` the student in one call,
``t`` the teacher in as many guided DDIM steps as that spans, and how many pictures are right. Which rows: ``--rows``; without it
each step once by the teacher, and once the student's steps up to it and the teacher's behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import numpy as np

from exporter.recipe.schema import Recipe
from exporter.training import context
from tools.demo.captions import Prompt, evaluation_prompts
from tools.demo.pictures import best_device, made, network
from tools.demo.score import score

if TYPE_CHECKING:
    from torch import Tensor

    from exporter.passes.trajectory import Trajectory

STUDENT, TEACHER = "s", "t"


def rows(steps: int) -> list[str]:
    """Who makes each step: the student all, the teacher one, the teacher all that follow one, the teacher all."""
    alone = [STUDENT * place + TEACHER + STUDENT * (steps - place - 1) for place in range(steps)]
    behind = [STUDENT * place + TEACHER * (steps - place) for place in range(steps - 1, -1, -1)]
    return list(dict.fromkeys([STUDENT * steps, *alone, *behind]))


class Play:
    """Draws a recipe's pictures, each step by the student or by the teacher.

    Args:
        recipe: with a trajectory among the passes of its UNet.
        prompts: all that will be drawn.
        unet: folder of the student, instead of what the recipe's training left.
        device: where it runs.
        leaps: of the student, instead of the recipe's.

    Raises:
        click.ClickException: the recipe has no trajectory, or one that does not leap so.

    """

    def __init__(self, recipe: Recipe, prompts: Sequence[Prompt], unet: Path | None, device: str, leaps: str = "") -> None:
        import torch  # noqa: PLC0415 - help needs none

        from engines import plugins  # noqa: PLC0415 - as above
        from exporter.families import claim  # noqa: PLC0415
        from exporter.models.resolve import resolve  # noqa: PLC0415
        from exporter.training import encode  # noqa: PLC0415
        from exporter.training.noise_schedule import Schedule  # noqa: PLC0415

        options = next((step["trajectory"] for step in _passes(recipe) if "trajectory" in step), None)
        if options is None:
            raise click.ClickException(f"{recipe.name}: no trajectory among the UNet's passes")
        given = {"leaps": leaps.split(","), "to": leaps.count(",") + 1} if leaps else {}
        try:
            self.options: Trajectory = plugins.load("passes", "trajectory").model_validate(options | given)
        except ValueError as error:
            raise click.ClickException(f"--leaps {leaps}: {error}") from error
        source = claim(resolve(recipe.model, recipe.root), recipe)
        plain = context.plain(source, source.checkpoint)
        learned = network(unet) if unet else made(recipe).checkpoint.module("unet")
        self.student = plain.part("unet", "fp32").replacing(learned.eval()).module.to(device)
        self.teacher = plain.part("unet", "fp32").module.to(device)
        self.decoder = source.part("vae_decoder", "fp32").module.to(device)
        configs = source.checkpoint.configs
        self.schedule = Schedule(configs["scheduler"], "trajectory")
        self.schedule.settle(torch.device(device))
        self.device, self.channels = device, configs["unet"]["in_channels"]
        cell = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
        self.cells = [side[1] // cell for side in (recipe.shapes.height, recipe.shapes.width)]
        self.texts = sorted({prompt.text for prompt in prompts})
        ports = [port.name for port in plain.signature("unet").inputs[2:]]
        with tempfile.TemporaryDirectory() as folder:
            encode.captions(context.steered(self.options, source), self.texts, Path(folder), 256)
            arrays = [np.load(Path(folder) / f"{port}.npy") for port in ports]
        self.states = [torch.from_numpy(array).float().to(device) for array in arrays]

    def __call__(self, row: str, texts: list[str], seed: int) -> np.ndarray:
        """Pictures (N, H, W, 3) in uint8; picture i depends on seed + i alone."""
        import torch  # noqa: PLC0415 - help needs none

        places = [1 + self.texts.index(text) for text in texts]
        states = [each[places].unsqueeze(1) for each in self.states]
        shape = (self.channels, *self.cells)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(texts))])
        fine = self.schedule.grid(self.options.teacher_steps)
        latent = self.schedule.level(fine[:1])[1] * noise.to(self.device)
        with torch.no_grad():
            for who, (start, stop) in zip(row, pairwise((0, *self.options.stops)), strict=True):
                latent = (self._leap if who == STUDENT else self._walk)(latent, fine[start : stop + 1], states)
            picture = self.decoder(latent)
        return np.round(picture.cpu().numpy() * 255).astype(np.uint8)

    def _leap(self, latent: Tensor, times: Tensor, states: Sequence[Tensor]) -> Tensor:
        now, then = (time.expand(len(latent)) for time in (times[0], times[-1]))
        said = self.options.prediction or self.schedule.prediction
        return self.schedule.step(said, latent, self.student(latent, now.float(), *states), now, then)

    def _walk(self, latent: Tensor, times: Tensor, states: Sequence[Tensor]) -> Tensor:
        import torch  # noqa: PLC0415 - help needs none

        from exporter.training.noise_schedule import guided  # noqa: PLC0415 - as above

        scale = torch.full((len(latent),), self.options.guidance, device=latent.device)
        empty = [each[:1].unsqueeze(1) for each in self.states]
        for one, next_ in pairwise(times):
            now, then = one.expand(len(latent)), next_.expand(len(latent))
            said = guided(self.teacher, latent, now, states, empty, scale)
            latent = self.schedule.step(self.schedule.prediction, latent, said, now, then)
        return latent


def _passes(recipe: Recipe) -> list[dict[str, dict[str, object]]]:
    """The UNet's, the last first."""
    return list(reversed(recipe.components["unet"].passes)) if "unet" in recipe.components else []


@click.command()
@click.argument("path", metavar="RECIPE", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--unet", type=click.Path(path_type=Path, exists=True), help="Folder of the student.  [default: as it was distilled]"
)
@click.option("--rows", "chosen", multiple=True, metavar="sstt", help="Who makes each step.")
@click.option("--leaps", default="", metavar="4,4,4,4", help="Of the student.  [default: the recipe's]")
@click.option("--count", default=500, show_default=True, help="Prompts of each kind.")
@click.option("--seed", default=0, show_default=True)
def main(path: Path, unet: Path | None, chosen: tuple[str, ...], leaps: str, count: int, seed: int) -> None:
    """Tells which step of a few-step student loses pictures."""
    prompts = evaluation_prompts(count)
    play = Play(Recipe.load(path), prompts, unet, best_device(), leaps)
    steps = play.options.to
    if wrong := [row for row in chosen if len(row) != steps or set(row) - {STUDENT, TEACHER}]:
        raise click.BadParameter(f"{wrong[0]} is not {steps} letters {STUDENT} or {TEACHER}", param_hint="--rows")
    click.echo("| steps | calls | right | share | of them lost as |\n|---|---|---|---|---|")
    for row in chosen or rows(steps):
        spans = zip(row, np.diff((0, *play.options.stops)).tolist(), strict=True)
        calls = sum(1 if who == STUDENT else 2 * span for who, span in spans)
        found = cast("Mapping[str, Any]", score(partial(play, row), prompts, seed)["all"])
        why = ", ".join(f"{reason} {number}" for reason, number in list(found["complaints"].items())[:3])
        click.echo(f"| {row} | {calls} | {found['right']} of {found['total']} | {found['share']:.1%} | {why} |")


if __name__ == "__main__":
    main()
