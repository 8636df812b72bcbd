"""Make pictures with a bundle: `python -m engines BUNDLE "a prompt"`, which is also `t2iexport generate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engines.errors import T2IError

if TYPE_CHECKING:
    from engines.samplers import Step


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out.png"), show_default=True, help="PNG to write.")
@click.option("--negative-prompt", default="", help="What to stay away from; needs classifier-free guidance.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first picture; each next one adds 1.")
@click.option("--steps", type=int, help="Of the sampler; the bundle says which it has.")
@click.option("--height", type=int, help="In pixels.")
@click.option("--width", type=int, help="In pixels.")
@click.option("--guidance-scale", type=float, help="How strictly the prompt steers, where the bundle has guidance.")
@click.option("--backend", help="Which of the bundle's engines to run.")
def generate(bundle: Path, prompts: tuple[str, ...], output: Path, backend: str | None, **wishes: Any) -> None:  # noqa: ANN401
    """Make one picture per prompt and write it as PNG, with what made it as text inside."""
    from engines.picture import save  # noqa: PLC0415 - --help stays quick
    from engines.pipeline import Pipeline  # noqa: PLC0415

    def progress(step: Step) -> None:
        click.echo(f"\rstep {step.index} of {step.total or '?'}", err=True, nl=step.index == step.total)

    with Pipeline.open(bundle, backend) as pipeline:
        pictures = pipeline.generate(prompts, on_step=progress if sys.stderr.isatty() else None, **wishes)
    for path in save(pictures, output):
        click.echo(path)


def main() -> None:
    """Run the command; an error that the user can act on is a sentence and its exit status."""
    try:
        generate(prog_name="python -m engines")
    except T2IError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"error: {error}. Is there room, and may this user write there?", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
