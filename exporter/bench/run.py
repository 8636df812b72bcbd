"""How fast a bundle is: where its time goes, and how it stands beside others, interleaved in one run on the same noise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.images.png import save
from engines.pipeline import Pipeline
from engines.plugins import did_you_mean
from engines.sessions import Network
from engines.strict import Frozen
from exporter import machine
from exporter.bench import diffusers
from exporter.bench.drawing import require_prompts_alone
from exporter.bench.operators import PartOperators, operators
from exporter.bench.stopwatch import Stopwatch
from exporter.parity.metrics import psnr
from exporter.reference.recording import load_run

#: Rounds that are not counted: compilers compile, caches fill, clocks rise.
WARM_UP = 2
#: Seconds before each run, in which threads of the one before, which spin while they wait for more work, come to rest.
REST = 0.05
#: Of every picture; picture i of a batch is that of SEED + i.
SEED = 0

Say = Callable[[str], None]


class Task(Frozen):
    """What everybody draws: one prompt, as many times as the batch is large, each on noise of its own. Sizes in pixels."""

    prompt: str
    steps: int
    height: int
    width: int
    guidance_scale: float | None

    @property
    def wishes(self) -> dict[str, Any]:
        """The task as arguments, without the prompt."""
        return self.model_dump(exclude={"prompt"})


@dataclass(frozen=True)
class Contestant:
    """Whoever draws the task.

    Attributes:
        name: as the user named it.
        runs_on: backend or library, with its version.
        draw: batch → that many pictures.
        watch: watches its networks.
        command: draws one picture in a fresh Python process; ends before the path of the PNG.
        python: the interpreter that does.

    """

    name: str
    runs_on: str
    draw: Callable[[int], list[Image.Image]]
    watch: Stopwatch
    command: tuple[str, ...] = ()
    python: str = sys.executable


class Timing(Frozen):
    """One contestant at one batch: per stage the seconds of every repeat, and how often networks of each role ran in the last."""

    contestant: str
    runs_on: str
    batch: int
    stages: dict[str, tuple[float, ...]]
    calls: dict[str, int]

    @property
    def seconds(self) -> np.ndarray:
        """Of the whole run, from prompt to PNG: float64 (repeats,)."""
        return np.sum(list(self.stages.values()), axis=0)

    def percentile(self, percent: float, stage: str | None = None) -> float:
        """Seconds that so many percent of the repeats took at most; of a stage, or of the whole."""
        return float(np.percentile(self.seconds if stage is None else self.stages[stage], percent))

    def share(self, stage: str) -> float:
        """Part of the whole time that a stage took; the shares add up to 1."""
        return float(np.sum(self.stages[stage]) / np.sum(self.seconds))

    @property
    def rate(self) -> float:
        """Pictures per second, at the median."""
        return self.batch / self.percentile(50)


class BenchReport(Frozen):
    """What was measured.

    Attributes:
        task: what was drawn.
        repeats: that were counted.
        reference: whose pictures `psnr` compares with: the fp32 source model where it runs along, else the bundle.
        timings: the bundle first, by batch.
        psnr: of the picture at the first batch, 8 bits a channel, in dB.
        cold: by contestant, a fresh process that draws one picture; empty where that was not asked.
        environment: the machine.
        operators: of the bundle's networks; empty where that was not asked.

    """

    task: Task
    repeats: int
    reference: str
    timings: tuple[Timing, ...]
    psnr: dict[str, float]
    cold: dict[str, machine.Cold]
    environment: machine.Environment
    operators: tuple[PartOperators, ...] = ()

    def ratio(self, timing: Timing) -> float:
        """How many times as long as the bundle it took: the median over the rounds, each of which ran both."""
        own = next(each for each in self.timings if each.batch == timing.batch)
        return float(np.median(timing.seconds / own.seconds))


def bench(
    path: Path,
    against: Sequence[str] = (),
    *,
    batches: Sequence[int] = (1,),
    repeats: int = 10,
    steps: int | None = None,
    cold: bool = True,
    profile: bool = False,
    say: Say = lambda _: None,
) -> BenchReport:
    """Measure a bundle, and whoever it is to be compared with.

    Args:
        path: the bundle.
        against: names of `bench.diffusers.KINDS`, other backends of the bundle, or paths of other bundles.
        batches: pictures per run.
        repeats: rounds that count, for each batch.
        steps: of the sampler; the bundle's default unless given.
        cold: whether to start a fresh process for each, too.
        profile: whether to ask the bundle's libraries which operators its networks' time goes to, also on backends
            of `against`.
        say: told what goes on.

    Raises:
        UnsupportedError, MissingDependency, BundleError: someone cannot draw the task.

    """
    asked, surroundings = task(Bundle.open(path), steps), machine.environment()
    with contestants(path, against, asked, say) as field, TemporaryDirectory() as folder:
        timings, pictures = race(field, batches, repeats, Path(folder), say)
    reference = next((each.name for each in field if each.name == "diffusers"), field[0].name)
    likenesses = {name: likeness(made, pictures[reference]) for name, made in pictures.items()}
    started = {each.name: start(each, say) for each in field} if cold else {}
    backends = (None, *(name for name in dict.fromkeys(against) if name in Bundle.open(path).manifest.runs())) if profile else ()
    profiled = [part for name in backends for part in operators(path, asked.prompt, asked.wishes, name, say)]
    once = {(part.part, part.backend): part for part in profiled}
    about: dict[str, Any] = {"cold": started, "environment": surroundings, "operators": tuple(once.values())}
    return BenchReport(task=asked, repeats=repeats, reference=reference, timings=timings, psnr=likenesses, **about)


def task(bundle: Bundle, steps: int | None = None) -> Task:
    """What a bundle draws by default, of the prompt that its source was recorded with."""
    defaults, scale = bundle.manifest.defaults, bundle.manifest.guidance.scale
    steps = defaults.steps if steps is None else steps
    return Task(prompt=_prompt(bundle), steps=steps, height=defaults.height, width=defaults.width, guidance_scale=scale)


@contextmanager
def contestants(
    path: Path, against: Sequence[str], wanted: Task, say: Say = lambda _: None, root: Path | None = None
) -> Iterator[list[Contestant]]:
    """Open the bundle, and after it everybody else; close them at the end of the `with`.

    `root` is the folder of the bundle's recipe, where that is known.
    """
    bundle = Bundle.open(path)
    backends = list(bundle.manifest.runs())
    others = [name for name in dict.fromkeys(against) if name != str(path)]
    for name in others:
        if name not in diffusers.KINDS and name not in backends and not Path(name).exists():
            hint = did_you_mean(name, [*diffusers.KINDS, *backends])
            raise UnsupportedError(f"{name!r} is neither a bundle's folder nor a backend of this one nor a baseline{hint}")
    for each in (path, *(Path(name) for name in others if name not in diffusers.KINDS and name not in backends)):
        require_prompts_alone(Bundle.open(each).manifest.inputs, "a comparison")
    with ExitStack() as stack:
        say(f"opening {path}")
        own, pipeline = stack.enter_context(_bundle(path, None, wanted, str(path)))
        field = [own]
        for name in others:
            say(f"opening {name}")
            if name in diffusers.KINDS:
                field.append(_baseline(bundle, name, pipeline, wanted, root))
                continue
            place, backend = (path, name) if name in backends else (Path(name), None)
            found, other = stack.enter_context(_bundle(place, backend, wanted, name))
            steered, beside = (each.manifest.guidance for each in (bundle, other.bundle))
            if (steered.mode, steered.rows) != (beside.mode, beside.rows):
                raise UnsupportedError(f"{name} has other guidance than {path}, so it would do other work. Compare it by itself.")
            field.append(found)
        yield field


def contestant(name: str, pipeline: Pipeline, prompt: str, seed: int = SEED, **wishes: Any) -> Contestant:  # noqa: ANN401 - of `generate`
    """An open bundle that draws one prompt, whose networks nobody watches and which nobody starts anew."""

    def draw(batch: int) -> list[Image.Image]:
        return pipeline.generate([prompt] * batch, seed=seed, **wishes)

    return Contestant(name, pipeline.engine, draw, Stopwatch())


def race(
    field: Sequence[Contestant], batches: Sequence[int], repeats: int, folder: Path, say: Say = lambda _: None
) -> tuple[tuple[Timing, ...], dict[str, list[Image.Image]]]:
    """Let everybody draw in every round, and begin each round with the next of them.

    A run goes from the prompt to PNG files in `folder`.

    Returns:
        The timings, and by name the pictures of the last round of the first batch.

    """
    timings: list[Timing] = []
    pictures: dict[str, list[Image.Image]] = {}
    for batch in batches:
        seconds: dict[str, list[dict[str, float]]] = {each.name: [] for each in field}
        say(f"batch {batch}: {WARM_UP} rounds to warm up, then {repeats}")
        for turn in range(-WARM_UP, repeats):
            first = turn % len(field)
            for each in (*field[first:], *field[:first]):
                time.sleep(REST)
                made, found = each.watch.time(_run, each, batch, folder)
                if turn >= 0:
                    seconds[each.name].append(found)
                if batch == batches[0]:
                    pictures[each.name] = made
        for each in field:
            stages = {stage: tuple(run[stage] for run in seconds[each.name]) for stage in seconds[each.name][0]}
            roles = [call.role for call in each.watch.calls]
            calls = {role: roles.count(role) for role in dict.fromkeys(roles)}
            timings.append(Timing(contestant=each.name, runs_on=each.runs_on, batch=batch, stages=stages, calls=calls))
    return tuple(timings), pictures


def _run(contestant: Contestant, batch: int, folder: Path) -> list[Image.Image]:
    try:
        made = contestant.draw(batch)
    except UnsupportedError as error:
        raise UnsupportedError(f"{contestant.name}: {error}") from error
    save(made, folder / "picture.png")
    return made


@contextmanager
def _bundle(path: Path, backend: str | None, wanted: Task, name: str) -> Iterator[tuple[Contestant, Pipeline]]:
    watch = Stopwatch()
    roles = {part: entry.role for part, entry in Bundle.open(path).manifest.parts.items()}

    def wrap(part: str, _backend: str, network: Network) -> Network:
        return watch.watch(roles.get(part, part), network)

    with Pipeline.open(path, backend, wrap=wrap) as pipeline:
        chosen = ["--backend", backend] if backend else []
        command = ("-m", "engines", str(path), wanted.prompt, "--steps", str(wanted.steps), *chosen, "-o")
        yield replace(contestant(name, pipeline, wanted.prompt, **wanted.wishes), watch=watch, command=command), pipeline


def _baseline(bundle: Bundle, kind: str, pipeline: Pipeline, wanted: Task, root: Path | None) -> Contestant:
    watch = Stopwatch()
    made = diffusers.Baseline(bundle, kind, watch, root)

    def draw(batch: int) -> list[Image.Image]:
        noise = pipeline.seeded(SEED, batch, wanted.height, wanted.width)
        return made.draw([wanted.prompt] * batch, noise, **wanted.wishes)

    code = "from exporter.bench.diffusers import main; main()"
    command = ("-c", code, str(bundle.folder), kind, wanted.prompt, str(wanted.steps))
    return Contestant(kind, made.library, draw, watch, command)


def _prompt(bundle: Bundle) -> str:
    """The prompt that the source was recorded with, or of an unchecked bundle the one that recipes have by default."""
    recorded = [name for name in bundle.manifest.recordings if name.startswith("recordings/run_")]
    if recorded:
        return load_run(bundle.path(recorded[0])).setting.prompts[0]
    from exporter.recipe.schema import Checks  # noqa: PLC0415 - for the few that have no recording

    return Checks().prompts[0]


def likeness(made: Sequence[Image.Image], wanted: Sequence[Image.Image]) -> float:
    """PSNR of pictures in dB; the worst of the batch."""
    pairs = zip(made, wanted, strict=True)
    return min(psnr(np.asarray(one, np.float32) / 255, np.asarray(other, np.float32) / 255, 1.0) for one, other in pairs)


def start(contestant: Contestant, say: Say = lambda _: None) -> machine.Cold:
    """Time one picture of a fresh process."""
    say(f"a first picture by {contestant.name}, from a fresh process")
    with TemporaryDirectory() as folder:
        # What torch compiled before is not there for a process that is new.
        variables = {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "torch")}
        return machine.cold((*contestant.command, str(Path(folder) / "picture.png")), variables, contestant.python)
