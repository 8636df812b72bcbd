"""Distillation's loop on accelerate: one machine, many GPUs, FSDP and DeepSpeed are its configuration."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional as F

from engines.errors import DivergenceError, MissingDependency, UnsupportedError
from exporter.lesson import LATENTS, Lesson
from exporter.part import Part
from exporter.passes import _features
from exporter.passes._draw import Draws
from exporter.passes._memory import refuse_memory

if TYPE_CHECKING:
    from exporter.passes._options import Options

CURVE = "curve.jsonl"
#: Seconds between lines of progress.
_EVERY = 15.0
_SHARDED = {DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}
_HALVES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def teach(options: Options, student: Part, lesson: Lesson) -> Part:
    """Train the student; the result is a network of its own, in float32.

    Raises:
        UnsupportedError, DivergenceError, MissingDependency: as `Distill.teach` says.

    """
    if options.log_with and importlib.util.find_spec(options.log_with) is None:
        raise MissingDependency(options.log_with, options.log_with)
    with _accelerated(options, lesson.kept) as accelerator:
        training = Training(options, student, lesson, accelerator)
        state = training.run()
    network = student.network
    made = type(network).from_config(network.config)
    made.load_state_dict(state)
    told = f"{student.name}: {options.told}, {training.told}"
    part = student.having(made.eval().requires_grad_(requires_grad=False))
    return replace(part, notes=(*student.notes, told), findings=(*student.findings, ("distill", training.findings)))


@contextmanager
def _accelerated(options: Options, folder: Path) -> Iterator[Accelerator]:
    # Processes wait for the first one, which may load and check much longer than the ten minutes that are the rule.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(
        mixed_precision=options.mixed_precision,
        gradient_accumulation_steps=options.accumulate,
        log_with=options.log_with,
        project_dir=folder,
        kwargs_handlers=[patience],
    )
    if plugin := getattr(accelerator.state, "deepspeed_plugin", None):
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = options.batch  # it asks a data loader, and there is none
    try:
        yield accelerator
    finally:
        accelerator.end_training()
        AcceleratorState._reset_state()  # noqa: SLF001 - the next training of this process may have another precision


class Training:
    """One training's state.

    Attributes:
        findings: losses of the first and last steps, for whoever reads the bundle.

    """

    def __init__(self, options: Options, student: Part, lesson: Lesson, accelerator: Accelerator) -> None:
        self._options, self._lesson, self._name, self._accelerator = options, lesson, student.name, accelerator
        self._draws = Draws(options, lesson, LATENTS)
        self._say = lesson.say if accelerator.is_main_process else lambda _: None
        network, source = student.network, lesson.teacher.network
        self._refuse(network, source)
        pairs = _features.pairs(options.features, network, source, lesson.moved) if options.features and options.watched else []
        self.findings: dict[str, Any] = {"features": [list(pair) for pair in pairs]}
        for parameter in network.parameters():
            parameter.data = parameter.data.clone()  # it may be a file that is mapped
        network.requires_grad_(requires_grad=True)
        if options.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        student.module.train()
        self._watches = [_features.Watch(each, [pair[side] for pair in pairs]) for side, each in enumerate((network, source))]
        self._trained = list(network.parameters())
        optimizer = torch.optim.AdamW(self._trained, lr=options.learning_rate, weight_decay=options.weight_decay)
        self._model, self._optimizer = accelerator.prepare(student.module, optimizer)
        rate = "cosine" if options.schedule == "cosine" else "constant_with_warmup"
        self._rate = get_scheduler(rate, optimizer, num_warmup_steps=options.warmup, num_training_steps=options.steps)
        self._teacher = lesson.teacher.module.to(accelerator.device, _HALVES[options.mixed_precision]).eval()
        self._average = None
        if options.ema is not None:
            self._average = EMAModel(self._parameters(), decay=options.ema, foreach=True)
            self._average.to(accelerator.device)
        accelerator.register_for_checkpointing(self._rate, *([self._average] if self._average else []))

    @property
    def told(self) -> str:
        """How it went, in words."""
        first, last = self.findings["first"], self.findings["last"]
        words = (f"{name} {first[name]:.3g} → {last[name]:.3g}" for name in last if name != "steps")
        return f"mean losses of the first and last {last['steps']} steps: {', '.join(words)}"

    def run(self) -> dict[str, Tensor]:
        """Train to the end, from the last checkpoint, and return the network's weights (or their average) on the processor."""
        options, accelerator = self._options, self._accelerator
        step, since, told = self._resume(), time.monotonic(), time.monotonic()
        first = step
        if options.log_with:
            accelerator.init_trackers("distill")
        while step < options.steps:
            losses = self._step(step)
            step += 1
            self._note(step, losses)
            now = time.monotonic()
            if now - told > _EVERY or step == options.steps:
                told, each = now, (now - since) / (step - first)
                left = each * (options.steps - step) / 60
                words = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
                self._say(
                    f"{self._name}, distill: step {step} of {options.steps}, {words}; {each:.2f} s a step, {left:.0f} min left"
                )
            if step % options.checkpoint_every == 0 or step == options.steps:
                self._save(step)
        for watch in self._watches:
            watch.end()
        self._summarise()
        if self._average is not None:
            self._average.copy_to(self._parameters())
        state = accelerator.get_state_dict(self._model)
        place = next(name for name, child in self._lesson.teacher.module.named_children() if hasattr(child, "config"))
        return {name.removeprefix(f"{place}."): value.detach().float().cpu().clone() for name, value in state.items()}

    def _step(self, step: int) -> dict[str, float]:
        """One step of the optimizer; the mean losses over all processes.

        Raises:
            DivergenceError: a loss or the gradient is not finite.

        """
        options, accelerator = self._options, self._accelerator
        sums: dict[str, Tensor] = {}
        norm = None
        for turn in range(options.accumulate):
            share = (step * options.accumulate + turn) * accelerator.num_processes + accelerator.process_index
            with accelerator.accumulate(self._model):
                losses = self._losses(share)
                accelerator.backward(losses["loss"])
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach() / options.accumulate
                if accelerator.sync_gradients:
                    means = dict(zip(sums, accelerator.reduce(torch.stack(list(sums.values())), "mean").tolist(), strict=True))
                    norm = accelerator.clip_grad_norm_(self._model.parameters(), options.clip)
                    # An infinite gradient is how fp16's loss scaling finds its scale; it skips the step itself.
                    whole = norm is None or options.mixed_precision == "fp16" or bool(torch.isfinite(norm))
                    if not whole or not torch.isfinite(torch.tensor(means["loss"])):
                        self._diverged(step + 1, means["loss"])
                self._optimizer.step()
                self._optimizer.zero_grad()
        self._rate.step()
        if self._average is not None:
            self._average.step(self._parameters())
        return means

    def _losses(self, share: int) -> dict[str, Tensor]:
        options, device = self._options, self._accelerator.device
        noisy, times, states, target = self._draws.batch(share)
        inputs = [value.to(device) for value in (noisy, times, *states)]
        watching, weights = self.findings["features"], options.weights
        with device:  # the wrapper makes sizes on the way
            for watch in self._watches:
                watch.arm()
            with torch.no_grad():
                taught = self._teacher(*inputs) if watching or weights.output else None
            said = self._model(*inputs)
        found = {"task": F.mse_loss(said.float(), target.to(device))}
        total = weights.task * found["task"]
        if weights.output and taught is not None:
            found["output"] = F.mse_loss(said.float(), taught.float())
            total = total + weights.output * found["output"]
        if watching:
            both = zip(*(watch.take() for watch in self._watches), strict=True)
            found["feature"] = torch.stack([F.mse_loss(own.float(), others.float()) for own, others in both]).sum()
            total = total + weights.feature * found["feature"]
        return {"loss": total, **found}

    # Checkpoints.

    @property
    def _checkpoints(self) -> list[Path]:
        """Whole ones, the newest last."""
        found = (path for path in self._lesson.kept.glob("checkpoint-*") if path.suffix != ".partial")
        return sorted(found, key=lambda path: int(path.name.partition("-")[2]))

    def _resume(self) -> int:
        """Go on from the last checkpoint; the step that it was made after, 0 without one."""
        accelerator, curve = self._accelerator, self._lesson.kept / CURVE
        found = self._checkpoints
        step = 0
        if found:
            step = int(found[-1].name.partition("-")[2])
            accelerator.load_state(str(found[-1]))
            self._say(f"{self._name}, distill: going on after step {step} of {self._options.steps}, from {found[-1]}")
        if accelerator.is_main_process:
            lines = curve.read_text().splitlines(keepends=True)[:step] if curve.is_file() else []
            curve.write_text("".join(lines))
        return step

    def _save(self, step: int) -> None:
        """Make a checkpoint, which appears whole under its name, and remove the one before."""
        accelerator, final = self._accelerator, self._lesson.kept / f"checkpoint-{step}"
        partial = final.with_suffix(".partial")
        old = self._checkpoints
        if accelerator.is_main_process:
            for left in self._lesson.kept.glob("*.partial"):
                shutil.rmtree(left)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            partial.rename(final)
            for each in old:
                shutil.rmtree(each)
        accelerator.wait_for_everyone()

    def _diverged(self, step: int, loss: float) -> None:
        found = self._checkpoints
        kept = (
            f"The checkpoint after {found[-1].name.replace('checkpoint-', 'step ')} is kept: {found[-1]}"
            if found
            else ("There is no checkpoint yet")
        )
        raise DivergenceError(
            f"{self._name}, distill: at step {step} the loss is {loss}, or its gradient is not finite. {kept}.\n"
            "  Lower learning_rate or clip, raise warmup, or take mixed_precision: no; a changed recipe trains from the start."
        )

    # What is told.

    def _note(self, step: int, losses: dict[str, float]) -> None:
        if self._accelerator.is_main_process:
            with (self._lesson.kept / CURVE).open("a") as file:
                file.write(json.dumps({"step": step, **losses}) + "\n")
        if self._options.log_with:
            self._accelerator.log(losses, step)

    def _summarise(self) -> None:
        if not self._accelerator.is_main_process:
            self.findings |= {"first": {"steps": 0}, "last": {"steps": 0}}
            return
        rows = [json.loads(line) for line in (self._lesson.kept / CURVE).read_text().splitlines()]
        count = max(1, min(50, len(rows) // 2))
        for place, some in (("first", rows[:count]), ("last", rows[-count:])):
            means = {name: sum(row[name] for row in some) / count for name in rows[0] if name != "step"}
            self.findings[place] = {"steps": count, **means}

    def _parameters(self) -> list[nn.Parameter]:
        return list(self._accelerator.unwrap_model(self._model).parameters())

    def _refuse(self, student: Any, source: Any) -> None:  # noqa: ANN401 - diffusers' UNets
        accelerator, options = self._accelerator, self._options
        sharded = accelerator.distributed_type in _SHARDED
        if sharded and options.ema is not None:
            raise UnsupportedError(
                f"distill.ema: no process has all weights under {accelerator.distributed_type.value}, so none can average them.\n"
                "  Leave ema out."
            )
        counts = [sum(value.numel() for value in each.parameters()) for each in (student, source)]
        shares = accelerator.num_processes if sharded else 1
        told = refuse_memory(*counts, options, accelerator.device, shares)
        self._say(f"{self._name}, distill: {told}")
