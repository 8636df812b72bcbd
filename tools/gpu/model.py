"""One model in a process of its own: its weights, its engines, and everybody timed side by side."""

from __future__ import annotations

import copy
import gc
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler

from engines.parallel.picard import Picard
from engines.samplers import Player
from engines.samplers.table import Table
from exporter.models.resolve import resolve
from exporter.schedulers.compile_sampler import compile_sampler
from tools.gpu import graphs
from tools.gpu.record import Gate, Record
from tools.gpu.runners import KINDS, Graphed, Torch, feed, host, race, snr, told

_BYTES = 2**30


@dataclass(frozen=True)
class Settings:
    """What is asked of one model.

    Attributes:
        model: an architecture, or a folder in diffusers' format; weights are random.
        name: of the result.
        graphs: folder of its graphs and weights; a graph that is missing is exported.
        kinds: engines to measure, of `runners.KINDS`.
        variants: of `graphs.VARIANTS`.
        compile_mode: of torch.compile; empty leaves it out.
        prepare: stop before timing: weights and engines are made, and torch's compiled code is in its cache.
        seconds: of timing, for each comparison.
        patience: seconds to wait for the GPU alone.
        cores: processors on which engines are built, one each.

    """

    model: str
    name: str
    graphs: Path
    work: Path
    out: Path
    kinds: tuple[str, ...]
    variants: tuple[str, ...]
    device: str
    size: int
    batch: int
    steps: int
    compile_mode: str
    seconds: float
    rounds: int
    patience: float
    cores: tuple[int, ...]
    prepare: bool = False


class Measurement:
    """The networks of one model, opened, and what they are compared on."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.record = settings, Record(settings.out / f"{settings.name}.json")
        self.folder = settings.graphs / settings.name
        self.engines: dict[tuple[str, str], Any] = {}
        self.torch: dict[tuple[str, str], Torch] = {}
        self.inputs: dict[str, dict[str, np.ndarray]] = {}
        settings.work.mkdir(parents=True, exist_ok=True)
        self.gate = Gate(settings.work / "gate")

    def run(self) -> None:
        """Everything; what fails is noted, and the rest goes on."""
        settings, record = self.settings, self.record
        if settings.device == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self._make()
        with ThreadPoolExecutor(len(settings.cores)) as builders:
            building = self._build(builders)
            for variant in settings.variants:
                with record.attempt("torch", variant):
                    self._load(variant)
                for (other, kind), future in building.items():
                    if other == variant:
                        with record.attempt("engines", variant, kind):
                            self._open(variant, kind, future)
                self._race(variant)  # before torch compiles, which takes minutes
        for variant in settings.variants:
            if settings.compile_mode and variant != "plain" and (variant, "torch") in self.torch:  # the batch alone differs
                self._compiled(variant)
                self._race(variant)
        if not settings.prepare:
            self._measure()

    def _make(self) -> None:
        """Graphs and weights, where they are not there yet."""
        settings, record = self.settings, self.record
        for variant in settings.variants:
            began = time.perf_counter()
            if not (self.folder / f"{variant}.json").is_file():
                graphs.make(settings.model, variant, self.folder, size=settings.size, batch=settings.batch)
                record.note("graphs", variant, export_s=round(time.perf_counter() - began, 1))
            facts = graphs.facts(self.folder, variant)
            self.inputs[variant] = feed(facts["signature"])
            record.note("graphs", variant, **{key: facts[key] for key in ("nodes", "parameters", "bytes", "precision")})
        began = time.perf_counter()
        for variant in settings.variants:
            graphs.fill(self.folder, variant, len(settings.cores))
        record.note("weights", seconds=round(time.perf_counter() - began, 1))

    def _race(self, variant: str) -> None:
        """Time everybody who has this network by now, alone on the GPU."""
        if not self.settings.prepare:
            self.record.note("timing", variant, alone=self.gate.alone(self.settings.patience))
            with self.record.attempt("times", variant):
                self._time(variant)
            self.gate.share()

    def _measure(self) -> None:
        """Time what needs several networks, alone on the GPU."""
        settings, record = self.settings, self.record
        record.note("timing", "image", alone=self.gate.alone(settings.patience))
        if {"guided", "decoder"} <= set(settings.variants):
            with record.attempt("image"):
                self._image()
        if "plain" in settings.variants:
            with record.attempt("batches"):
                self._batches()
            for kind in settings.kinds:
                with record.attempt("parallel", kind):
                    self._parallel(kind)
        self._close()
        self.gate.leave()

    def _build(self, builders: ThreadPoolExecutor) -> dict[tuple[str, str], Future[list[Path]]]:
        free = list(self.settings.cores)

        def build(variant: str, kind: str) -> list[Path]:
            core = free.pop(0) if free else self.settings.cores[0]
            os.sched_setaffinity(0, {core})  # of this thread, and of the process that builds
            try:
                began = time.perf_counter()
                chosen, passes = KINDS[kind].make(), KINDS[kind].passes
                path = self.folder / f"{variant}.onnx"
                path = graphs.rewrite(path, passes, f"{variant}-{kind}") if passes else path
                if KINDS[kind].backend in {"onnxruntime", "openvino"}:
                    files = [path]  # it runs the graph itself, and opening it is all there is
                else:
                    signature = graphs.facts(self.folder, variant)["signature"]
                    files = list(chosen.build(path, signature, self.settings.work / self.settings.name / kind))
                seconds, size = time.perf_counter() - began, sum(file.stat().st_size for file in files)
                self.record.note("engines", variant, kind, build_s=round(seconds, 1), file_gb=round(size / 1e9, 3))
                return files
            finally:
                free.append(core)

        wanted = [(variant, kind) for variant in self.settings.variants for kind in self.settings.kinds]
        return {pair: builders.submit(build, *pair) for pair in wanted}

    def _load(self, variant: str) -> None:
        settings, record = self.settings, self.record
        began = time.perf_counter()
        same = next((one.network for (other, _), one in self.torch.items() if self._one(other) == self._one(variant)), None)
        network = (
            graphs.network(settings.model, variant, self.folder, settings.size, len(settings.cores), settings.device)
            if same is None
            else same
        )
        if same is None and settings.device == "cuda":
            network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's overloads lack it alone
        eager = Torch(network, self.inputs[variant], settings.size // self.inputs[variant]["latent"].shape[2])
        right = host(self._exact(eager, variant))
        np.save(self._kept(variant), right)
        self._call(eager, variant)()  # warms up
        got = self._call(eager, variant)()
        self.torch[variant, "torch"] = eager
        record.note("torch", variant, load_s=round(time.perf_counter() - began, 1), snr_db=round(snr(host(got), right), 1))
        self._graph("torch-graph", eager, variant, right)

    def _compiled(self, variant: str) -> None:
        right = np.load(self._kept(variant))
        with self.record.attempt("torch-compile", variant):
            compiled = self._compile(self.torch[variant, "torch"], variant, right)
            self._graph("torch-compile-graph", compiled, variant, right)

    def _kept(self, variant: str) -> Path:
        return self.settings.work / f"{self.settings.name}-{variant}.npy"

    def _one(self, variant: str) -> str:
        return graphs.component(variant)

    def _exact(self, eager: Torch, variant: str) -> Any:  # noqa: ANN401
        """The result in float32, with the same numbers as weights; cuDNN need not search for what is done once."""
        search, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        exact = Torch(copy.deepcopy(eager.network).float(), self.inputs[variant], self.settings.size // eager.latent.shape[2])
        found = self._call(exact, variant)()
        torch.backends.cudnn.benchmark = search
        del exact
        gc.collect()
        if self.settings.device == "cuda":
            torch.cuda.empty_cache()
        return found

    def _graph(self, name: str, one: Torch, variant: str, right: np.ndarray) -> None:
        """Measure a network of torch as one CUDA graph too, where there is CUDA."""
        if self.settings.device == "cuda":
            with self.record.attempt(name, variant):
                graphed = Graphed(one)
                got = self._call(graphed, variant)()
                self.torch[variant, name] = graphed
                self.record.note(name, variant, snr_db=round(snr(host(got), right), 1))

    def _compile(self, eager: Torch, variant: str, right: np.ndarray) -> Torch:
        began = time.perf_counter()
        compiled = copy.copy(eager)
        options: dict[str, Any] = {"fullgraph": True, "dynamic": False, "mode": self.settings.compile_mode}
        if variant == "decoder":
            compiled.decode = torch.compile(eager.decode, **options)
        else:
            compiled.network = torch.compile(eager.network, **options)
        for _ in range(2):
            self._call(compiled, variant)()
        got = self._call(compiled, variant)()
        self.torch[variant, "torch-compile"] = compiled
        seconds = round(time.perf_counter() - began, 1)
        self.record.note("torch-compile", variant, compile_s=seconds, snr_db=round(snr(host(got), right), 1))
        return compiled

    def _call(self, one: Torch, variant: str) -> Callable[[], Any]:
        return one.decoded if variant == "decoder" else one.call

    def _open(self, variant: str, kind: str, future: Future[list[Path]]) -> None:
        files = future.result()
        began = time.perf_counter()
        signature = graphs.facts(self.folder, variant)["signature"]
        engine = KINDS[kind].make().open(files, signature)
        opened = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(2):
            engine(self.inputs[variant])
        (got,) = engine(self.inputs[variant]).values()
        right = np.load(self._kept(variant))
        self.engines[variant, kind] = engine
        found = {"open_s": round(opened, 1), "first_three_s": round(time.perf_counter() - began, 2)}
        self.record.note("engines", variant, kind, **found, snr_db=round(snr(host(got), right), 1))

    # Timing.

    def _time(self, variant: str) -> None:
        calls: dict[str, Callable[[], Any]] = {}
        for (other, name), one in self.torch.items():
            if other == variant:
                calls[name] = self._call(one, variant)
        for (other, name), engine in self.engines.items():
            if other == variant:
                calls[name] = lambda engine=engine: engine(self.inputs[variant])
        times = race(calls, self.settings.seconds, self.settings.rounds)
        self.record.note("times", variant, **told(times, "torch"))

    def _image(self) -> None:
        """Pictures of `steps` Euler steps and the decoder, without the text encoders."""
        own, table = self._schedule(), self._table()
        calls: dict[str, Callable[[], Any]] = {}
        for name in dict.fromkeys(name for _, name in self.torch):
            if {("guided", name), ("decoder", name)} <= self.torch.keys():
                pair = self.torch["guided", name], self.torch["decoder", name]
                calls[name] = lambda pair=pair: self._torch_image(*pair, own)
        for kind in self.settings.kinds:
            if {("guided", kind), ("decoder", kind)} <= self.engines.keys():
                calls[kind] = lambda kind=kind: self._engine_image(kind, table)
        pictures = {name: call() for name, call in calls.items()}
        times = race(calls, self.settings.seconds, self.settings.rounds, least=2)
        found = told(times, "torch")
        for name, picture in pictures.items():
            if "torch" in pictures and name != "torch":
                error = np.square(picture.astype(np.float64) - pictures["torch"]).mean()
                found[name]["psnr_db"] = round(float(-10 * np.log10(max(error, 1e-12))), 1)
        self.record.note("image", steps=self.settings.steps, **found)

    def _noise(self) -> np.ndarray:
        return np.random.default_rng(1).standard_normal(self.inputs["guided"]["latent"].shape, np.float32)

    @torch.inference_mode()
    def _torch_image(self, unet: Torch, vae: Torch, own: Mapping[str, Any]) -> np.ndarray:
        # Its annotation allows for the config too, which comes back only where it is asked for.
        scheduler = cast("EulerDiscreteScheduler", EulerDiscreteScheduler.from_config(dict(own)))
        scheduler.set_timesteps(self.settings.steps, device=unet.device)
        latent = torch.from_numpy(self._noise()).to(unet.device, unet.latent.dtype) * scheduler.init_noise_sigma
        for moment in scheduler.timesteps:
            output = unet.denoise(scheduler.scale_model_input(latent, moment), moment)
            latent = scheduler.step(output, moment, latent, return_dict=False)[0]
        return host(vae.decode(latent))

    def _engine_image(self, kind: str, table: Table) -> np.ndarray:
        unet, vae, rest = self.engines["guided", kind], self.engines["decoder", kind], self.inputs["guided"]

        def denoise(latent: np.ndarray, timestep: float | np.ndarray, *_: Any, **__: Any) -> np.ndarray:  # noqa: ANN401 - the sampler's
            return unet({**rest, "latent": latent, "timestep": np.full(1, timestep, np.float32)})["model_output"]

        return vae({"latent": table.play(denoise, self._noise)})["image"]

    def _batches(self) -> None:
        """How much longer a batch takes than one picture: what parallel sampling lives on."""
        signature, eager = graphs.facts(self.folder, "plain")["signature"], self.torch.get(("plain", "torch"))
        for batch in (1, 2, 4, 8):
            if batch > self.settings.batch:
                break
            inputs, calls = feed(signature, batch), dict[str, Callable[[], Any]]()
            for kind in self.settings.kinds:
                if ("plain", kind) in self.engines:
                    calls[kind] = lambda kind=kind, inputs=inputs: self.engines["plain", kind](inputs)
            if eager is not None:
                calls["torch"] = Torch(eager.network, inputs, self.settings.size // eager.latent.shape[2]).call
            for call in calls.values():
                call()
            for name, found in told(race(calls, self.settings.seconds / 3, self.settings.rounds), "torch").items():
                self.record.note("batches", name, **{str(batch): found})

    def _parallel(self, kind: str) -> None:
        """Pictures of `steps` Euler steps without guidance, one step after the other and in windows, on one engine."""
        engine, rest = self.engines.get(("plain", kind)), self.inputs["plain"]
        if engine is None:
            return
        table, most = self._table(), self.settings.batch

        def denoise(latent: np.ndarray, timestep: float | np.ndarray, *_: Any, **__: Any) -> np.ndarray:  # noqa: ANN401 - the sampler's
            times, found = np.broadcast_to(np.asarray(timestep, np.float32), len(latent)), []
            for start in range(0, len(latent), most):
                part = slice(start, start + most)
                count = len(latent[part])
                same = {name: np.repeat(array, count, axis=0) for name, array in rest.items()}
                given = {**same, "latent": latent[part], "timestep": np.ascontiguousarray(times[part])}
                found.append(engine(given)["model_output"])
            return np.concatenate(found)

        noise = np.random.default_rng(1).standard_normal(rest["latent"].shape, np.float32)

        def played(player: Player) -> tuple[np.ndarray, float]:
            player.play(denoise, lambda: noise)  # warms up
            began = time.perf_counter()
            return player.play(denoise, lambda: noise), time.perf_counter() - began

        right, sequential = played(table)
        self.record.note("parallel", kind, sequential={"steps": self.settings.steps, "s": round(sequential, 4)})
        player = Picard(window=most, tolerance=0.03).over(table)
        got, seconds = played(player)
        (effort,) = player.efforts
        found = {"s": round(seconds, 4), "speedup": round(sequential / seconds, 3), "iterations": effort.iterations}
        found |= {"evaluations": effort.evaluations, "latent_rms": round(float(np.sqrt(np.square(got - right).mean())), 4)}
        self.record.note("parallel", kind, **{f"window={most},tolerance=0.03": found})

    def _table(self) -> Table:
        own, size = self._schedule(), self.settings.size
        return compile_sampler("EulerDiscreteScheduler", {}, self.settings.steps, size, size, own=own)

    def _schedule(self) -> Mapping[str, Any]:
        made = graphs.recipe(self.settings.model, "guided", self.settings.size, 1)
        return resolve(made.model, made.root).configs["scheduler"]

    def _close(self) -> None:
        """Close one after the other; the memory of the GPU that each gives back is what it took."""
        for (variant, kind), engine in self.engines.items():
            self._given_back(("engines", variant, kind), lambda engine=engine: engine.__exit__(None, None, None))
        for owner in dict.fromkeys(self._one(variant) for variant in self.settings.variants):
            networks = [pair for pair in self.torch if self._one(pair[0]) == owner]
            self._given_back(("torch", owner), lambda networks=networks: [self.torch.pop(pair) for pair in networks])

    def _given_back(self, place: tuple[str, ...], close: Callable[[], object]) -> None:
        with self.record.attempt(*place):
            before = _free(self.settings.device)
            close()
            gc.collect()
            if self.settings.device == "cuda":
                torch.cuda.empty_cache()
            self.record.note(*place, gpu_gb=round((_free(self.settings.device) - before) / _BYTES, 2))


def _free(device: str) -> int:
    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else 0
