"""Hold every stage of a bundle to the one before it, and the whole to the source, on the same noise. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engines import plugins
from engines.backends import Backend, Engine
from engines.bundle import Bundle, PartEntry, SamplerEntry, Verdict
from engines.errors import ParityError, T2IError, UnsupportedError
from engines.images.init_image import InitImage
from engines.lora.layers import CONV_SCALE, SCALE, LoraLayers
from engines.lora.stacking import LoraTarget, scaled, stacked
from engines.pipeline import Pipeline
from engines.samplers import Draw
from engines.samplers.table import Table
from engines.sessions import playable
from engines.tokenizer import TextTokenizer
from exporter.onnx.target_ops import unread
from exporter.parity.judge import failed, judge
from exporter.parity.probe_lora import probes
from exporter.part import LORA_SCALES, Case, joined
from exporter.recipe.limits import COARSENESS, STAGES, Limits, class_of
from exporter.reference.recording import HALF_MAX, Run, load_cases, load_run


def compare(path: Path, backend: str | None, limits: Limits, report: Callable[[str], None] = lambda _: None) -> list[Verdict]:
    """Play source and engines on the same noise; every verdict, in the order of the pipeline.

    Without a backend, passes, graphs and sampler are checked, and no engine is opened. A part that has only another backend's
    engine is checked on that.

    The source's side was recorded when the bundle was built and travels with it, so this runs wherever the engines run.

    Raises:
        UnsupportedError, MissingDependency: an engine cannot be opened here.
        ParityError: an engine was opened, and fails when it is called.

    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    taken = playable(manifest, backend)[backend] if backend else {}
    verdicts: list[Verdict] = []
    runs = [load_run(bundle.path(name)) for name in manifest.recordings if name.startswith("recordings/run_")]
    ranges = json.loads(bundle.path("recordings/ranges.json").read_text(encoding="utf-8"))
    verdicts += _tokens(bundle, runs)
    for name, entry in manifest.parts.items():
        if entry.role == "pipeline":  # has no recordings of its own: it is held to the source's pictures
            continue
        report(name)
        cases = load_cases(bundle.path(f"recordings/{name}.npz"))
        verdicts += _part(bundle, name, entry, cases, taken.get(name), limits)
        if entry.lora:
            verdicts += _adapted(bundle, name, entry, taken.get(name), limits)
        if entry.precision == "fp16" and entry.role != "shallow":  # whose layers are among the whole one's
            verdicts.append(_headroom(name, ranges[name]))
    report("sampler")
    for run in runs:
        entry = manifest.compiled(run.setting.steps, run.setting.height, run.setting.width)
        verdicts.append(_table(_sampler(bundle, entry, run), run, limits("sampler", "table", "fp32")))
    if backend is None:
        return verdicts
    report("end to end")
    with Pipeline.open(path, backend) as pipeline:
        coarsest = max((_class(entry, taken[name]) for name, entry in manifest.running().items()), key=COARSENESS.index)
        for run in runs:
            with _answering(f"the pipeline on {backend}"):
                verdicts += _end_to_end(pipeline, run, backend, coarsest, limits)
    return verdicts


@contextmanager
def _answering(what: str) -> Iterator[None]:
    """What opens must answer: a failure here is the engine's, and not what the machine lacks."""
    try:
        yield
    except UnsupportedError as error:
        raise ParityError(f"{what} was opened here, and fails when it is called.\n  {error}") from error


def _graph_class(entry: PartEntry) -> str:
    return class_of(entry.precision, entry.quantized.format if entry.quantized else "")


def _class(entry: PartEntry, backend: str) -> str:
    """Precision class of a part's engine on this machine: its graph's, or a coarser one in which the backend computes."""
    inside = plugins.load("backends", backend).model_validate(entry.engines[backend].options).computes(entry.precision)
    return max(inside, _graph_class(entry), key=COARSENESS.index)


def _part(
    bundle: Bundle, name: str, entry: PartEntry, cases: Sequence[Case], backend: str | None, limits: Limits
) -> Iterator[Verdict]:
    """From source to passes to graph to engine, on the source's own inputs."""
    torch = [step for step in entry.passes if not step.startswith("quantize")]  # which works on the graph
    changed = ", ".join([*torch, *([entry.precision] if entry.precision != "fp32" else [])])
    floor = limits.of_remade(name) if entry.remade else limits(name, "passes", entry.precision)
    for case in cases:
        pairs = [(case.passes[port], case.source[port]) for port in case.source]
        yield judge(name, "passes", case.label, pairs, floor, note=changed)
    opset = str(entry.engines[backend].opset) if backend else next(iter(entry.onnx))
    graph, answers = entry.onnx[opset], [case.passes for case in cases]
    if why := unread(entry, int(opset)):
        # Said in the table, not passed over: the graph is then held to its limit together with the engine that runs it.
        yield Verdict(part=name, stage=STAGES["onnx"], case="", passed=True, note=f"not compared: {why}")
    else:
        # The graph as it is written, run by the reference runtime with its own optimisations off.
        reference = plugins.load("backends", "onnxruntime")(graph_optimization="none")
        files = [bundle.path(file) for file in graph.files]
        with reference.open(files, entry.signature) as engine, _answering(f"{name}: its graph"):
            answers = [engine(case.inputs) for case in cases]
        for case, answer in zip(cases, answers, strict=True):
            pairs = [(answer[port], case.passes[port]) for port in case.passes]
            told = f"quantize: {entry.quantized.format}" if entry.quantized else ""
            yield judge(name, "onnx", case.label, pairs, limits(name, "onnx", _graph_class(entry)), note=told)
    if backend is None:
        return
    built, inside = entry.engines[backend], _class(entry, backend)
    told = backend if inside in {entry.precision, _graph_class(entry)} else f"{backend}, {inside} inside"
    opener = plugins.load("backends", backend).model_validate(built.options)
    with opener.open([bundle.path(file) for file in built.files], entry.signature) as engine:
        for case, answer in zip(cases, answers, strict=True):
            with _answering(f"{name}: its engine of {backend}"):
                got = engine(case.inputs)
            pairs = [(got[port], answer[port]) for port in answer]
            yield judge(name, "engine", case.label, pairs, limits(name, "engine", inside), backend=backend, note=told)


def _adapted(bundle: Bundle, name: str, entry: PartEntry, backend: str | None, limits: Limits) -> Iterator[Verdict]:
    """A part's inputs for LoRAs, each item's own, held to the network with the same LoRAs fused into its weights."""
    if entry.lora is None:
        return
    target = LoraTarget.of(name, entry.lora.limits, LoraLayers.load(bundle.path(entry.lora.layers)))
    loras, cases = probes(target.taken, entry.lora.limits), load_cases(bundle.path(f"recordings/{name}-lora.npz"))
    arrays, fed = stacked(target, loras), list[dict[str, np.ndarray]]()
    for case in cases:
        own = {port: array for port, array in case.inputs.items() if port != LORA_SCALES}
        fed.append(own | arrays | scaled(target, loras, case.inputs[LORA_SCALES].tolist()))
    opset = str(entry.engines[backend].opset) if backend else next(iter(entry.onnx))
    runs: list[tuple[str | None, str, Backend, Sequence[str]]] = []
    if not unread(entry, int(opset)):
        plain = plugins.load("backends", "onnxruntime")(graph_optimization="none")
        runs.append((None, _graph_class(entry), plain, entry.onnx[opset].files))
    if backend:
        built = entry.engines[backend]
        opener = plugins.load("backends", backend).model_validate(built.options)
        runs.append((backend, _class(entry, backend), opener, built.files))
    for whose, inside, opener, files in runs:
        with opener.open([bundle.path(file) for file in files], entry.signature) as engine:
            for case, inputs in zip(cases, fed, strict=True):
                with _answering(f"{name}: its LoRAs on {whose or 'its graph'}"):
                    got = engine(inputs)
                    floor, label = limits(name, "lora", inside), f"{case.label}, {len(loras)} LoRAs"
                    pairs = [(got[port], case.passes[port]) for port in case.passes]
                    verdict = judge(name, "lora", label, pairs, floor, backend=whose, note=whose or "as inputs of the graph")
                    yield verdict if verdict.passed else verdict.model_copy(update={"note": _suspect(engine, inputs, got)})


def _suspect(engine: Engine, inputs: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> str:
    """What is wrong with a network whose LoRAs do not do what they should."""

    def same(other: Mapping[str, np.ndarray]) -> bool:
        return all(np.allclose(got[port], other[port], rtol=1e-4, atol=1e-5) for port in got)

    rest = {port: array for port, array in inputs.items() if not port.startswith("lora_")}
    if same(engine(rest)):
        return "LoRAs change nothing"
    if same(engine({**inputs, **{port: np.ones_like(inputs[port]) for port in (SCALE, CONV_SCALE) if port in inputs}})):
        return "their scales are ignored"
    return "LoRAs act otherwise than fused: on a wrong layer, or too coarsely"


def _headroom(name: str, peak: float) -> Verdict:
    """How far the largest activation seen in the fp32 source stays below the largest half-precision number."""
    note = f"largest activation {peak:.4g}, {HALF_MAX / peak:.1f} times below 65504" if peak else "no activation was seen"
    return Verdict(part=name, stage=STAGES["range"], case="all runs", passed=peak < HALF_MAX, note=note)


def _tokens(bundle: Bundle, runs: Sequence[Run]) -> Iterator[Verdict]:
    """The bundle's tokenizers must give the ids that the source's gave, one text case a run."""
    manifest = bundle.manifest
    for name, entry in manifest.tokenizers.items():
        tokenizer = TextTokenizer.of(bundle.path(entry.file), entry)
        part = next(part for part, found in manifest.with_role("text").items() if found.signature.port(entry.feeds))
        cases = iter(load_cases(bundle.path(f"recordings/{part}.npz")))
        for run in runs:
            setting, case = run.setting, next(cases)
            while len(case.inputs[entry.feeds]) < len(setting.prompts):  # of a part that takes one picture at a time
                case = joined(case, next(cases))
            wanted = case.inputs[entry.feeds]
            pairs_of_texts = [(setting.negative_prompt or "", prompt) for prompt in setting.prompts]
            texts = [pair[branch] for pair in pairs_of_texts for branch in entry.rows(wanted.shape[1])]
            found = tokenizer.encode(texts)
            pairs = [(found.ids, wanted), *([(found.weights, case.inputs[entry.weights])] if entry.weights else [])]
            wrong = [
                text
                for index, text in enumerate(texts)
                if not all(np.array_equal(got[index], want.reshape(len(texts), -1)[index]) for got, want in pairs)
            ]
            yield Verdict(
                part="tokenizers",
                stage=STAGES["tokens"],
                case=f"{name}, {setting.label}",
                passed=not wrong,
                note=f"other ids or weights for {wrong[0]!r}" if wrong else "the same ids",
            )


def _original(run: Run) -> InitImage | None:
    """What a run starts from, as the pipeline has it."""
    source, strength = run.source, run.setting.strength
    return None if source is None or strength is None else InitImage(source.pixels, source.anew, strength)


def _sampler(bundle: Bundle, entry: SamplerEntry, run: Run) -> Table:
    original = _original(run)
    if original is None or entry.image is None:
        return Table.load(bundle.path(entry.file))
    skipped = original.start(entry.steps, bundle.manifest.partial_step)
    return Table.load_start(bundle.path(entry.image), skipped, alone=original.alone, strength=original.strength)


def _table(table: Table, run: Run, limit: Mapping[str, float]) -> Verdict:
    """Open loop: given the source's model outputs and noise, the table must ask at the same times on the same latents."""
    times: list[float] = []
    shares: list[float] = []
    cached: list[bool] = []
    inputs: list[np.ndarray] = []
    # The encoder's draw, where it makes one, is in front of the sampler's.
    outputs, draws = iter(run.model_outputs), iter(run.draws[-sum(op.op == "draw" for op in table.ops) :])

    def denoise(
        latent: np.ndarray,
        timestep: float | np.ndarray,
        which: np.ndarray | None = None,  # noqa: ARG001 - the sampler's
        *,
        guided: float | np.ndarray | None = None,
        shallow: bool = False,
    ) -> np.ndarray:
        inputs.append(latent.copy())
        times.append(float(timestep))
        shares.append(1.0 if guided is None else float(guided))
        cached.append(shallow)
        return next(outputs)

    label = run.setting.label
    original, given = _original(run), {"image": run.source.latent} if run.source else {}
    mask = original and original.cells(*run.latent.shape[2:])
    try:
        final = table.play(denoise, lambda: next(draws), None, given, mask)
    except StopIteration:
        note = f"the table goes on after the source's {len(run.times)} evaluations and {len(run.draws)} draws"
        return failed("sampler", "table", label, limit, note)
    if not np.array_equal(np.array(times, np.float32), np.array(run.times, np.float32)):
        note = f"times {_short(times)} instead of {_short(run.times)}"
        return failed("sampler", "table", label, limit, note)
    if note := _other_scales(shares, run) or _other_calls(cached, run):
        return failed("sampler", "table", label, limit, note)
    pairs = [*zip(inputs, run.model_inputs, strict=True), (final, run.latent)]
    return judge("sampler", "table", label, pairs, limit)


def _other_scales(shares: Sequence[float], run: Run) -> str:
    """How the guidance of single steps differs from the source's, or nothing."""
    asked = max(run.setting.guidance_scale or 1.0, 1.0)
    found, wanted = (1 + np.array(shares) * (asked - 1), np.full(len(shares), asked) if run.scales is None else run.scales)
    if np.allclose(found, wanted, rtol=1e-5):
        return ""
    first = int(np.argmin(np.isclose(found, wanted, rtol=1e-5)))
    return f"guidance scale {found[first]:g} instead of {wanted[first]:g} at step {first + 1} of {len(shares)}"


def _other_calls(cached: Sequence[bool], run: Run) -> str:
    """Where the table asks for the outermost layers alone and the source ran whole, or the other way round; or nothing."""
    wanted = set(run.calls(shallow=True))
    for index, shallow in enumerate(cached):
        if shallow != (index in wanted):
            told = ("shallow", "whole") if shallow else ("whole", "shallow")
            return f"step {index + 1} of {len(cached)} is {told[0]}, and the source's is {told[1]}"
    return ""


def _short(times: Sequence[float] | np.ndarray) -> str:
    shown = [f"{time:g}" for time in times[:4]]
    return ", ".join(shown) + (" …" if len(times) > len(shown) else "")


def _end_to_end(pipeline: Pipeline, run: Run, backend: str, precision: str, limits: Limits) -> Iterator[Verdict]:
    """From prompt to picture with the bundle's own engines, sampler and tokenizers, on the source's noise."""
    setting, name = run.setting, "end to end"
    inputs: list[np.ndarray] = []
    latent: np.ndarray | None = None
    draws = iter(run.draws)
    try:
        if fused := pipeline.bundle.manifest.fused(setting.steps):
            ids, _ = pipeline.tokenize(setting.prompts, setting.negative_prompt or "")
            image = pipeline.at_once(fused, ids, lambda: next(draws), setting.scales)
        else:
            conditioning = _conditioning(pipeline, run, lambda: next(draws))
            latent = _stepped(pipeline, run, conditioning, lambda: next(draws), inputs)
            image = pipeline.decode(latent, conditioning)
    except (T2IError, StopIteration) as error:
        yield failed(name, "image", setting.label, limits(name, "image", precision), str(error), backend)
        return
    if latent is not None:
        floor = limits(name, "drift", precision)
        for index, pair in enumerate(zip(inputs, run.model_inputs, strict=True)):
            told = _after(run, index)
            yield judge(name, "drift", f"{setting.label}, step {index + 1}", [pair], floor, backend=backend, note=told)
        yield judge(name, "latent", setting.label, [(latent, run.latent)], limits(name, "latent", precision), backend=backend)
    yield judge(name, "image", setting.label, [(image, run.image)], limits(name, "image", precision), backend=backend)
    if run.uncached is not None:
        asked = limits(name, "caching", precision)
        yield judge(name, "caching", setting.label, [(image, run.uncached)], asked, backend=backend, note="the price of caching")


def _after(run: Run, index: int) -> str:
    """Whose deep feature the call before an index used, where that was a shallow one: its input shows how right that was."""
    if index - 1 not in (calls := run.calls(shallow=True)):
        return ""
    whole = max(each for each in range(index) if each not in calls)
    return f"after step {index}, shallow on the deep feature of step {whole + 1}"


def _conditioning(pipeline: Pipeline, run: Run, draw: Draw) -> Mapping[str, np.ndarray]:
    """What texts and pictures of a run become, which are prepared as a user's are."""
    setting = run.setting
    ids, _ = pipeline.tokenize(setting.prompts, setting.negative_prompt or "")
    entries = pipeline.bundle.manifest.inputs
    shown: dict[str, list[Any]] = {name: fed.tolist() for name, fed in run.inputs.items() if fed.ndim == 1}
    shown |= {name: list(fed) for name, fed in run.inputs.items() if entries[name].kind == "noise"}
    shown |= {
        name: [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels]
        for name, pixels in run.inputs.items()
        if name not in shown
    }
    return pipeline.condition({**ids, **pipeline.fed(shown, len(setting.prompts), setting.height, setting.width)}, draw)


def _stepped(
    pipeline: Pipeline, run: Run, conditioning: Mapping[str, np.ndarray], draw: Draw, inputs: list[np.ndarray]
) -> np.ndarray:
    """Play the sampler, keep what the denoiser saw, and return the final latent."""
    setting, original = run.setting, _original(run)
    return pipeline.sample(
        conditioning,
        draw,
        pipeline.sampler(setting.steps, setting.height, setting.width, original),
        setting.scales,
        on_step=lambda step: inputs.append(step.latent.copy()),
        original=original,
    )
