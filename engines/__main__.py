"""Make pictures with a bundle: `python -m engines BUNDLE "a prompt"`, which is also `t2iexport generate`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engines import exits
from engines.disk import require_file, require_folder
from engines.errors import UnsupportedError

if TYPE_CHECKING:
    from engines.parallel.picard import Picard
    from engines.pipeline import Pipeline
    from engines.samplers import Step

#: More than a machine has.
_DEVICES = 64

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out.png"), show_default=True, help="PNG to write.")
@click.option("--negative-prompt", help="What to stay away from; needs classifier-free guidance.")
@click.option("--seed", type=int, help="Of the first picture; each next one adds 1.  [default: 0]")
@click.option("--steps", type=int, help="Of the sampler; the bundle says which it has.")
@click.option("--sampler", metavar="NAME[:KEY=VALUE,...]", help="Instead of steps: adaptive, ode or predictor_corrector.")
@click.option("--height", type=int, help="In pixels.")
@click.option("--width", type=int, help="In pixels.")
@click.option("--guidance-scale", type=float, help="How strictly the prompt steers, where the bundle has guidance.")
@click.option("--image", type=_FILE, help="Picture to start from instead of noise; needs a bundle with a VAE encoder.")
@click.option("--mask", type=_FILE, help="Of the image's size: white is made anew, black stays as it is.")
@click.option("--strength", type=float, help="How much of the image may change, up to 1.  [default: 0.8; 1 with a mask]")
@click.option("--noise", type=_FILE, help=".npy of float32 draws to use instead of a seed's.")
@click.option("--from", "source", type=_FILE, help="PNG made by this bundle: make it again. Other options change what they name.")
@click.option("--previews", type=click.Path(file_okay=False, path_type=Path), help="Folder for the picture as each step sees it.")
@click.option("--backend", help="Which of the bundle's engines to run.")
@click.option(
    "--parallel",
    metavar="KEY=NUMBER,…",
    help="Take many steps of a picture at once: window=32,tolerance=0.03, and anderson=1, devices=1. For many devices: "
    "fewer batches of the denoiser after each other, more evaluations in all.",
)
def generate(
    bundle: Path,
    prompts: tuple[str, ...],
    output: Path,
    backend: str | None,
    parallel: str | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Make one picture per prompt and write it as PNG, with what made it as text inside."""
    from engines.images.png import places, write  # noqa: PLC0415 - --help stays quick
    from engines.pipeline import Pipeline  # noqa: PLC0415

    picard, devices = _parallel(parallel) if parallel is not None else (None, 1)
    source, previews = options.pop("source"), options.pop("previews")
    if not prompts and not source:
        raise click.UsageError("Missing argument 'PROMPTS...': what to draw, or --from a picture.")
    paths = places(output, len(prompts) or 1)
    for path in paths:
        require_file(path)
    if previews:
        require_folder(previews)
    shown, infos = list[Path](), list[dict[Any, Any]]()
    with Pipeline.open(bundle, backend, devices=devices) as pipeline:
        wishes = _wishes(pipeline, source, {"prompts": prompts or None, "parallel": picard, **options})
        for batch in _batches(pipeline, wishes):
            on_step = _progress() if previews is None else _previews(pipeline, previews, shown, len(infos))
            for picture in pipeline.generate(**batch, on_step=on_step):
                write(picture, path := paths[len(infos)])
                infos.append(picture.info)
                click.echo(path)
    if previews and not shown:
        click.echo("note: this sampler does not say which picture a step is towards, so there are no previews", err=True)
    if "iterations" in infos[0]:
        iterations, steps = (max(int(info[key]) for info in infos) for key in ("iterations", "sequential"))
        evaluations = sum(int(info["evaluations"]) for info in infos)
        text = f"{iterations} iterations, {evaluations} evaluations; one after the other: {steps}, {steps * len(infos)}"
        click.echo(f"{text}; {steps - iterations} steps saved", err=True)
    if wishes.get("sampler"):
        counts = [int(info["evaluations"]) for info in infos]
        most = f"; median {statistics.median(counts):g}, most {max(counts)}"
        click.echo(f"evaluations: {', '.join(map(str, counts))}{most if len(counts) > 1 else ''}", err=True)


def _wishes(pipeline: Pipeline, source: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Pipeline.generate`: what the options say, and before them what a picture says of how it was made."""
    from engines.images import init_image, noises  # noqa: PLC0415
    from engines.images.provenance import Made  # noqa: PLC0415

    wishes = {name: value for name, value in options.items() if value is not None}
    for name, read in (("image", init_image.read), ("mask", init_image.read), ("noise", noises.read)):
        if name in wishes:
            wishes[name] = read(wishes[name])
    if source is None:
        return wishes
    made = Made.read(source)
    if made.parallel:
        wishes.setdefault("parallel", _parallel(made.parallel)[0])
    before = made.wishes(pipeline.bundle.manifest)
    if "steps" in wishes or "sampler" in wishes:  # one takes the place of the other
        before |= {"steps": None, "sampler": None}
    wishes = {**before, **wishes}
    given = [wishes.get(name) for name in ("image", "mask", "strength", "height", "width")]
    made.compare(pipeline.original(*given) if wishes.get("image") else None)
    wishes["noise"] = made.own_noise(wishes.get("noise"))
    for note in made.doubts(pipeline.engine):
        click.echo(f"note: {note}", err=True)
    return wishes


def _batches(pipeline: Pipeline, wishes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many pictures at a time as the denoiser takes, so that each is written before the next ones are begun.

    All at once where that costs more: in parallel sampling pictures share batches, and `low_memory` loads every network anew.
    """
    prompts = [wishes["prompts"]] if isinstance(wishes["prompts"], str) else list(wishes["prompts"])
    noise, seed, count = wishes.get("noise"), wishes.get("seed") or 0, len(prompts)
    if noise is not None and noise.shape[-4] != count:
        raise UnsupportedError(f"the noise is that of {noise.shape[-4]} pictures, and {count} are asked for. Give as many.")
    size = count if wishes.get("parallel") or pipeline.bundle.manifest.low_memory else pipeline.batch
    for start in range(0, count, size):
        own = {"noise": noise[..., start : start + size, :, :, :]} if noise is not None else {"seed": seed + start}
        yield {**wishes, **own, "prompts": prompts[start : start + size]}


def _progress() -> Callable[[Step], None] | None:
    def told(step: Step) -> None:
        click.echo(f"\rstep {step.index} of {step.total or '?'}", err=True, nl=step.index == step.total)

    return told if sys.stderr.isatty() else None


def _previews(pipeline: Pipeline, folder: Path, shown: list[Path], before: int) -> Callable[[Step], None]:
    """Write step_01_0.png and so on, the step and the picture, and note them in `shown`; `before` is how many are done."""
    from engines.images.png import picture, save  # noqa: PLC0415

    tell = _progress()

    def told(step: Step) -> None:
        if tell:
            tell(step)
        if step.preview is None:
            return
        digits = max(2, len(str(step.total or 0)))
        for index, image in enumerate(pipeline.decode(step.preview), before):
            facts = {"step": f"{step.index} of {step.total or '?'}"}
            shown.extend(save([picture(image, facts)], folder / f"step_{step.index:0{digits}}_{index}.png"))

    return told


def _parallel(text: str) -> tuple[Picard, int]:
    """Read `window=32,tolerance=0.03`; how to sample in parallel, and on how many devices."""
    from pydantic import ValidationError  # noqa: PLC0415 - --help stays quick

    from engines.parallel.picard import Picard  # noqa: PLC0415
    from engines.plugins import did_you_mean  # noqa: PLC0415
    from engines.strict import describe  # noqa: PLC0415

    known, numbers = [*Picard.model_fields, "devices"], dict[str, str]()
    for pair in text.split(","):
        key, equals, number = (word.strip() for word in pair.partition("="))
        if key not in known:
            raise UnsupportedError(f"--parallel: no key {key!r}{did_you_mean(key, known)}")
        if not equals or key in numbers:
            raise UnsupportedError(f"--parallel: {key} {'is named twice' if key in numbers else 'has no number'}. Write {key}=1.")
        numbers[key] = number
    devices = numbers.pop("devices", "1")
    if not (devices.isdecimal() and 1 <= int(devices) <= _DEVICES):
        raise UnsupportedError(f"--parallel: devices={devices} must be a whole number from 1 to {_DEVICES}.")
    try:
        return Picard.model_validate_strings(numbers), int(devices)
    except ValidationError as error:
        raise UnsupportedError(f"--parallel {text} is not valid:\n{describe(error)}") from error


def main() -> None:
    """Run the command, and exit with its status."""
    exits.run(generate, "python -m engines")


if __name__ == "__main__":
    main()
