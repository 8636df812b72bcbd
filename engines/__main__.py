"""Make pictures with a bundle: `python -m engines BUNDLE "a prompt"`, which is also `t2iexport generate`; or `serve` it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from engines import exits
from engines.disk import require_file, require_folder
from engines.errors import UnsupportedError
from engines.serve.command import serve

if TYPE_CHECKING:
    from PIL.Image import Image

    from engines.manifest import Manifest
    from engines.parallel.picard import Picard
    from engines.pipeline import Pipeline
    from engines.samplers import Step

#: More than a machine has.
_DEVICES = 64

#: Where a run begins and stops that another bundle's goes before, or after.
_BETWEEN = ("denoising_start", "denoising_end")
#: What a second text encoder reads.
_SECONDS = ("prompt_2", "negative_prompt_2")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = "PNG, JPEG or WebP to write, by its ending; or .npy: latents, nothing decoded."
_MANY = "May be repeated."
_LORA = "LoRA of a bundle that was built for it; scales: for all, one a prompt, or one a picture."


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("out.png"), show_default=True, help=_OUTPUT)
@click.option("--no-metadata", is_flag=True, help="Write pictures that do not say how they were made.")
@click.option("--negative-prompt", multiple=True, help=f"What to stay away from; needs classifier-free guidance. {_MANY}")
@click.option("--prompt-2", multiple=True, help=f"What the second text encoder reads, where there are two. {_MANY}")
@click.option("--negative-prompt-2", multiple=True, help=f"What it reads to stay away from. {_MANY}")
@click.option("--images-per-prompt", type=click.IntRange(1), default=1, help="Pictures of each prompt.  [default: 1]")
@click.option("--seed", type=int, multiple=True, help=f"Of the first picture; the next adds 1; -1: random. {_MANY}  [default: 0]")
@click.option("--generator", type=click.Choice(["numpy", "torch-cpu", "torch-cuda"]), help="Whose noise a seed is.")
@click.option("--steps", type=int, help="Of the sampler; the bundle says which it has.")
@click.option("--sampler", metavar="NAME[:KEY=VALUE,...]", help="Instead of steps: adaptive, ode or predictor_corrector.")
@click.option("--height", type=int, help="In pixels.")
@click.option("--width", type=int, help="In pixels.")
@click.option("--guidance-scale", type=float, multiple=True, help=f"How strictly the prompt steers; up to 1 is off. {_MANY}")
@click.option("--pag-scale", type=float, multiple=True, help=f"How far from perturbed attention; 0 is off. {_MANY}")
@click.option("--image", type=_FILE, multiple=True, help=f"Picture to start from; needs a bundle with a VAE encoder. {_MANY}")
@click.option("--denoising-start", type=float, help="Go on from latents, --image FILE.npy, that another left here.")
@click.option("--denoising-end", type=float, help="Stop at this share of the noise's way, for another bundle to go on.")
@click.option("--mask", type=_FILE, multiple=True, help=f"Of the image's size: white is made anew, black stays. {_MANY}")
@click.option("--input", "inputs", metavar="NAME=FILE|NUMBER", multiple=True, help=f"What else the bundle takes. {_MANY}")
@click.option("--lora", "loras", metavar="FILE[:SCALE[,SCALE...]]", multiple=True, help=f"{_LORA} {_MANY}")
@click.option("--strength", type=float, help="How much of the image may change, up to 1.  [default: 0.8; 1 with a mask]")
@click.option("--noise", type=_FILE, help=".npy of float32 draws to use instead of a seed's.")
@click.option("--from", "source", type=_FILE, help="Picture of this bundle: make it again. Other options change what they name.")
@click.option("--previews", type=click.Path(file_okay=False, path_type=Path), help="Folder for the picture as each step sees it.")
@click.option("--backend", help="Which of the bundle's engines to run.")
@click.option("--best-of", type=click.IntRange(2), help="Draw so many for each picture, and keep the one that --reward chooses.")
@click.option("--reward", type=click.Path(path_type=Path), help="Folder of what chooses: t2iexport reward makes one.")
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
    best_of: int | None,
    reward: Path | None,
    no_metadata: bool,  # noqa: FBT001 - a flag of the command line
    **options: Any,  # noqa: ANN401
) -> None:
    """Make images of prompts, with what made them inside.

    What may be repeated is given once for all, once a prompt, or once a picture.
    """
    from engines.bundle import Bundle  # noqa: PLC0415 - --help stays quick
    from engines.images import noises  # noqa: PLC0415
    from engines.images.png import places, write  # noqa: PLC0415
    from engines.pipeline import Pipeline  # noqa: PLC0415

    picard, devices = _parallel(parallel) if parallel is not None else (None, 1)
    source, previews = options.pop("source"), options.pop("previews")
    if (best_of is None) != (reward is None) or (best_of and previews):
        raise click.UsageError("--best-of N and --reward FOLDER go together, and without --previews.")
    if not prompts and not source and Bundle.open(bundle).manifest.tokenizers:
        raise click.UsageError("Missing argument 'PROMPTS...': what to draw, or --from a picture.")
    undecoded = output.suffix.lower() == ".npy"
    if undecoded and (best_of or previews or source):
        raise click.UsageError("-o FILE.npy takes latents, without --from, --previews and --best-of.")
    count = (len(prompts) or 1) * options["images_per_prompt"]
    paths = [output] if undecoded else places(output, count)
    for path in paths:
        require_file(path)
    if previews:
        require_folder(previews)
    shown, infos = list[Path](), list[dict[Any, Any]]()
    with Pipeline.open(bundle, backend, devices=devices) as pipeline, _choosing(best_of, reward) as chosen:
        options["images_per_prompt"] *= best_of or 1
        wishes = _wishes(pipeline, source, {"prompts": prompts or None, "parallel": picard, **options})
        if undecoded:
            noises.write([pipeline.latents(**batch, on_step=_progress()) for batch in _batches(pipeline, wishes)], output)
            click.echo(output)
            return
        for batch in _batches(pipeline, wishes):
            on_step = _progress() if previews is None else _previews(pipeline, previews, shown, len(infos))
            for picture in chosen(pipeline.generate(**batch, on_step=on_step)):
                write(picture, path := paths[len(infos)], metadata=not no_metadata)
                infos.append(picture.info)
                click.echo(path)
    if previews and not shown:
        click.echo("note: this sampler does not say which picture a step is towards, so there are no previews", err=True)
    _tell(infos, counted=bool(wishes.get("sampler")))


def _tell(infos: list[dict[Any, Any]], *, counted: bool) -> None:
    """What pictures took that were sampled in parallel, and, where they are `counted`, how many evaluations each."""
    if "iterations" in infos[0]:
        iterations, steps = (max(int(info[key]) for info in infos) for key in ("iterations", "sequential"))
        evaluations = sum(int(info["evaluations"]) for info in infos)
        text = f"{iterations} iterations, {evaluations} evaluations; one after the other: {steps}, {steps * len(infos)}"
        click.echo(f"{text}; {steps - iterations} steps saved", err=True)
    if counted:
        counts = [int(info["evaluations"]) for info in infos]
        most = f"; median {statistics.median(counts):g}, most {max(counts)}"
        click.echo(f"evaluations: {', '.join(map(str, counts))}{most if len(counts) > 1 else ''}", err=True)


@contextmanager
def _choosing(count: int | None, reward: Path | None) -> Generator[Callable[[list[Image]], list[Image]]]:
    """What takes pictures as they are drawn and gives those that are kept: all, or of each `count` the one that fits best."""
    if count is None or reward is None:
        yield lambda drawn: drawn
        return
    from engines.reward import Reward  # noqa: PLC0415 - --help stays quick

    with Reward.open(reward) as judge:
        waiting = list[Any]()

        def chosen(drawn: list[Image]) -> list[Image]:
            waiting.extend(drawn)
            found = list[Any]()
            while len(waiting) >= count:
                found.append(best := judge.best(waiting[:count], waiting[0].info["prompt"]))
                del waiting[:count]
                info = best.info
                told = f"best of {count} by {info['reward']}: seed {info.get('seed', '–')}"
                click.echo(f"{told}, {info['reward_score']}; the mean {info['reward_mean']}", err=True)
            return found

        yield chosen


def _wishes(pipeline: Pipeline, source: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Pipeline.generate`: what the options say, and before them what a picture says of how it was made."""
    from engines.images import noises  # noqa: PLC0415
    from engines.images.provenance import ImageProvenance  # noqa: PLC0415

    manifest = pipeline.bundle.manifest
    wishes: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, ())}
    for name in ("image", "mask"):
        if name in wishes:
            wishes[name] = tuple(one for path in wishes[name] for one in _shown(path))
    if "noise" in wishes:
        wishes["noise"] = noises.read(wishes["noise"])
    inputs, loras = _inputs(manifest, wishes.pop("inputs", ())), wishes.pop("loras", ())
    _place(manifest, wishes, inputs)
    wishes, inputs = {**_alone(wishes), "loras": loras}, _alone(inputs)
    if source is None:
        return {**wishes, "inputs": inputs}
    made = ImageProvenance.read(source)
    if made.parallel:
        wishes.setdefault("parallel", _parallel(made.parallel)[0])
    before = made.wishes(manifest)
    made.compare_inputs(manifest, inputs)
    made.require_loras(loras)
    inputs = {**before.pop("inputs"), **inputs}
    if "steps" in wishes or "sampler" in wishes:  # one takes the place of the other
        before |= {"steps": None, "sampler": None}
    wishes = {**before, **wishes, "inputs": inputs}
    given = [wishes.get(name) for name in ("image", "mask", "strength", "height", "width", "denoising_start")]
    made.compare(pipeline.original(*given) if wishes.get("image") is not None else None)
    wishes["noise"] = made.own_noise(wishes.get("noise"))
    for note in made.doubts(pipeline.engine):
        click.echo(f"note: {note}", err=True)
    return wishes


def _place(manifest: Manifest, wishes: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Move what has an option of its own and is also an input to where the bundle takes it, however it was given."""
    from engines.guidance import PERTURBED  # noqa: PLC0415 - --help stays quick

    for name in ("image", "mask", "strength", "guidance_scale"):
        own, other = (inputs, wishes) if name in manifest.inputs else (wishes, inputs)
        if name in other and name not in own:
            own[name] = other.pop(name)
    if PERTURBED in wishes and PERTURBED in inputs:
        raise UnsupportedError(f"{PERTURBED} is given twice, by its own option and as an input. Leave one out.")
    if PERTURBED in wishes and any(scale.name == PERTURBED for scale in manifest.guidance.scales):
        inputs[PERTURBED] = wishes.pop(PERTURBED)  # a picture tells it among its inputs


def _shown(path: Path) -> list[Any]:
    """A picture, or the latents of a `.npy` file, one each."""
    from engines.images import init_image, init_latent, noises  # noqa: PLC0415 - --help stays quick

    return init_latent.each(noises.read_array(path)) if path.suffix.lower() == ".npy" else [init_image.read(path)]


def _alone(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same, where what was given once stands for itself, and what was given several times is a list."""
    lists = {name: list(cast("tuple[Any, ...]", value)) for name, value in given.items() if isinstance(value, tuple)}
    return {**given, **{name: values[0] if len(values) == 1 else values for name, values in lists.items()}}


def _inputs(manifest: Manifest, pairs: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    """Read `NAME=FILE` and `NAME=NUMBER`, by what the bundle says of the name; each as often as it was given."""
    from engines.images import init_image, noises  # noqa: PLC0415 - --help stays quick

    scales = [scale.name for scale in manifest.guidance.scales]
    found: dict[str, tuple[Any, ...]] = {}
    for pair in pairs:
        name, equals, text = (word.strip() for word in pair.partition("="))
        if not equals or not text:
            raise UnsupportedError(f"--input {pair}: write NAME=FILE or NAME=NUMBER.")
        entry = manifest.inputs.get(name)
        value: Any = text  # of a name that nobody knows; the pipeline says which there are
        if entry.pictured if entry else name in {"image", "mask"}:
            value = init_image.read(Path(text))
        elif entry and entry.kind == "noise":
            value = noises.read_array(Path(text))
        elif entry or name in {*scales, "strength"}:
            try:
                value = float(text)
            except ValueError as error:
                raise UnsupportedError(f"--input {pair}: {name} is a number, and {text!r} is none.") from error
        found[name] = (*found.get(name, ()), value)
    return found


def _batches(pipeline: Pipeline, wishes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many pictures at a time as the denoiser takes, so that each is written before the next ones are begun.

    All at once where that costs more: in parallel sampling pictures share batches, and `low_memory` loads every network anew.
    """
    from engines.lora.choice import chosen  # noqa: PLC0415 - --help stays quick
    from engines.request import Request, seeds, spread  # noqa: PLC0415

    asked = wishes.get("prompts") or ""
    prompts: list[str] = [asked] if isinstance(asked, str) else list(asked)
    each = wishes.pop("images_per_prompt", 1)
    noise, count = wishes.get("noise"), len(prompts) * each
    if noise is not None and noise.shape[-4] != count:
        raise UnsupportedError(f"the noise is that of {noise.shape[-4]} pictures, and {count} are asked for. Give as many.")
    lists: dict[str, Any] = {
        "prompts": spread("prompt", prompts, len(prompts), each),
        "seed": seeds(wishes.get("seed", 0), len(prompts), each),
    }
    for name in ("negative_prompt", *_SECONDS, "guidance_scale", "image", "mask"):
        if name in wishes and wishes[name] is not None:
            lists[name] = spread(name.replace("_", " "), wishes[name], len(prompts), each)
    inputs = {name: spread(name, value, len(prompts), each) for name, value in wishes.get("inputs", {}).items()}
    whole: dict[str, Any] = {**wishes, **lists, "inputs": inputs}
    # Refuses what is wrong with any of them before the first is made.
    taken: dict[str, Any] = {
        name: whole.get(name)
        for name in ("seed", "generator", "inputs", "guidance_scale", "pag_scale", "image", "mask", "strength", *_BETWEEN)
    }
    taken["seconds"] = {name: whole.get(name) for name in _SECONDS}
    loras = chosen(wishes.get("loras", ()), lambda name, value: spread(name, value, len(prompts), each))
    Request.of(pipeline.bundle.manifest, lists["prompts"], 1, negative_prompt=whole.get("negative_prompt", ""), **taken)
    size = count if wishes.get("parallel") or pipeline.bundle.manifest.low_memory else pipeline.batch
    for start in range(0, count, size):
        own: dict[str, Any] = {name: values[start : start + size] for name, values in lists.items()}
        own["inputs"] = {name: values[start : start + size] for name, values in inputs.items()}
        own["loras"] = [(choice.file, choice.scales[start : start + size]) for choice in loras]
        own |= {"noise": noise[..., start : start + size, :, :, :]} if noise is not None else {}
        yield {**wishes, **own}


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
    """Run the command, and exit with its status; `serve` is one of its own, and a bundle of that name is `./serve`."""
    if sys.argv[1:2] == ["serve"]:
        exits.run(serve, "python -m engines serve", sys.argv[2:])
    exits.run(generate, "python -m engines")


if __name__ == "__main__":
    main()
