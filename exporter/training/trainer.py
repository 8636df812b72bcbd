"""The loop of every training, on accelerate: one machine, many GPUs, FSDP and DeepSpeed are its configuration."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from engines.errors import DivergenceError, MissingDependency, UnsupportedError
from exporter.part import Part
from exporter.training.context import TrainingContext
from exporter.training.cuda_graph import Capture
from exporter.training.memory import own, refuse_memory

if TYPE_CHECKING:
    from exporter.training.objective import Losses
    from exporter.training.options import Options

CURVE = "curve.jsonl"
#: Seconds between lines of progress.
_EVERY = 15.0
#: Steps after which losses are fetched from an accelerator: until then the host runs ahead of it.
_FETCH = 50
_SHARDED = {DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}
_HALVES = {"no": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def teach(options: Options, student: Part, lesson: TrainingContext, losses: Losses) -> Part:
    """Train the student; the result is a network of its own, in float32.

    Args:
        options: how the optimizer goes.
        student: whose network is trained.
        lesson: where checkpoints lie, and who is told.
        losses: what is minimised.

    Raises:
        UnsupportedError: an option that this machine cannot follow.
        MachineError: too little memory.
        DivergenceError: the loss is not finite; the last checkpoint is kept.
        MissingDependency: the tracker is not installed.

    """
    if options.log_with and importlib.util.find_spec(options.log_with) is None:
        raise MissingDependency(options.log_with, options.log_with)
    with _accelerated(options, lesson.kept) as accelerator:
        training = Training(options, student, lesson, losses, accelerator)
        state = training.run()
    network = student.network
    made = type(network).from_config(network.config)
    for name, child in network._modules.items():  # noqa: SLF001 - its named_children leave out what is not there
        if child is None:  # of a VAE, the half that the part does without
            setattr(made, name, None)
    made.load_state_dict(state)
    told = f"{student.name}: {options.summary}, {training.outcome}"
    part = student.replacing(made.eval().requires_grad_(requires_grad=False))
    return replace(part, notes=(*student.notes, told), metadata=(*student.metadata, (options.verb, training.metadata)))


@contextmanager
def _accelerated(options: Options, folder: Path) -> Iterator[Accelerator]:
    # Processes wait for the first one, which may load and check much longer than the ten minutes that are the rule.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    short = options.mixed_precision == "tf32"
    accelerator = Accelerator(
        mixed_precision="no" if short else options.mixed_precision,
        gradient_accumulation_steps=options.accumulate,
        log_with=options.log_with,
        project_dir=folder,
        kwargs_handlers=[patience],
    )
    if plugin := getattr(accelerator.state, "deepspeed_plugin", None):
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = options.batch  # it asks a data loader, and there is none
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before or short
    try:
        yield accelerator
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
        accelerator.end_training()
        AcceleratorState._reset_state()  # noqa: SLF001 - the next training of this process may have another precision


class Training:
    """One training's state.

    Attributes:
        metadata: what was compared, and losses of the first and last steps, for whoever reads the bundle.

    """

    def __init__(
        self, options: Options, student: Part, lesson: TrainingContext, losses: Losses, accelerator: Accelerator
    ) -> None:
        self._options, self._lesson, self._losses, self._accelerator = options, lesson, losses, accelerator
        self._name = f"{student.name}, {options.verb}"
        self._say = lesson.say if accelerator.is_main_process else lambda _: None
        network, device = student.network, accelerator.device
        self._refuse(network)
        self.metadata: dict[str, Any] = dict(losses.metadata)
        own(network)
        network.requires_grad_(requires_grad=True)
        if options.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        student.module.train()
        names = [name for name, child in student.module.named_children() if child is network]
        self._prefix = f"{names[0]}."
        fused = device.type == "cuda" and accelerator.distributed_type not in _SHARDED
        plain = options.accumulate == 1 and not options.gradient_checkpointing and options.mixed_precision != "fp16"
        captured = fused and plain and accelerator.distributed_type == DistributedType.NO and options.capture == "auto"
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            fused=fused or None,
            capturable=captured,
        )
        self._model, self._optimizer = accelerator.prepare(student.module, optimizer)
        rate = "cosine" if options.schedule == "cosine" else "constant_with_warmup"
        self._rate = get_scheduler(rate, optimizer, num_warmup_steps=options.warmup, num_training_steps=options.steps)
        losses.settle(device, _HALVES[options.mixed_precision])
        self._parameters = list(accelerator.unwrap_model(self._model).parameters())
        self._average = None
        if options.ema is not None:
            self._average = EMAModel(self._parameters, decay=options.ema, foreach=True)
            self._average.to(device)
        accelerator.register_for_checkpointing(self._rate, *([self._average] if self._average else []), *losses.kept)
        self._capture = Capture(self._whole) if captured else None
        self._shrink = torch.zeros((), device=device)  # of the average's distance, where steps are captured
        self._names: list[str] = []
        self._pending: list[tuple[int, list[str], Tensor]] = []
        self._fetch = _fetch(device)
        self._last: dict[str, float] = {}

    @property
    def outcome(self) -> str:
        """How it went, in words."""
        first, last = self.metadata["first"], self.metadata["last"]
        words = (f"{name} {first[name]:.3g} → {last[name]:.3g}" for name in last if name != "steps")
        return f"mean losses of the first and last {last['steps']} steps: {', '.join(words)}"

    def run(self) -> dict[str, Tensor]:
        """Train to the end, from the last checkpoint, and return the network's weights (or their average) on the processor."""
        options, accelerator = self._options, self._accelerator
        step, since, told = self._resume(), time.monotonic(), time.monotonic()
        first = step
        if self._capture:
            for group in self._optimizer.param_groups:  # the graph reads it from there
                group["lr"] = torch.tensor(float(group["lr"]), device=accelerator.device)
        if options.log_with:
            accelerator.init_trackers(options.verb)
        while step < options.steps:
            self._step(step)
            step += 1
            now = time.monotonic()
            if now - told > _EVERY or step == options.steps:
                self._note()
                told, each = now, (now - since) / (step - first)
                left = each * (options.steps - step) / 60
                words = ", ".join(f"{name} {value:.4g}" for name, value in self._last.items())
                self._say(f"{self._name}: step {step} of {options.steps}, {words}; {each:.2g} s a step, {left:.0f} min left")
            if step % options.checkpoint_every == 0 or step == options.steps:
                self._save(step)
        self._losses.end()
        self._summarise()
        if self._average is not None:
            self._average.copy_to(self._parameters)
        state = cast("Mapping[str, Tensor]", accelerator.get_state_dict(self._model))  # inferred as JSON, of DeepSpeed's config
        return {name.removeprefix(self._prefix): value.detach().float().cpu().clone() for name, value in state.items()}

    def _step(self, step: int) -> None:
        """One step of the optimizer.

        Raises:
            DivergenceError: a loss or the gradient is not finite; on an accelerator that is seen some steps later.

        """
        if self._capture:
            if self._average is not None:
                self._average.optimization_step += 1
                self._shrink.fill_(1 - self._average.get_decay(self._average.optimization_step))
            self._told(step, self._capture(*self._losses.draw(step)))
            self._rate.step()
            return
        options, accelerator = self._options, self._accelerator
        sums: dict[str, Tensor] = {}
        for turn in range(options.accumulate):
            share = (step * options.accumulate + turn) * accelerator.num_processes + accelerator.process_index
            with accelerator.accumulate(self._model):
                losses = self._losses(self._model, *self._losses.draw(share))
                accelerator.backward(losses["loss"])
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach() / options.accumulate
                if accelerator.sync_gradients:
                    means = cast("Tensor", accelerator.reduce(torch.stack(list(sums.values())), "mean"))  # as it was given
                    norm = accelerator.clip_grad_norm_(self._model.parameters(), options.clip)
                    self._names = list(sums)
                    self._told(step, _row(means, norm))
                self._optimizer.step()
                self._optimizer.zero_grad()
        self._rate.step()
        if self._average is not None:
            self._average.step(self._parameters)
        self._losses.stepped(self._parameters)

    def _whole(self, *drawn: Tensor) -> Tensor:
        """The same step for one process, on the device alone: it is called a few times, then captured, and then replayed."""
        self._optimizer.zero_grad()
        losses = self._losses(self._model, *drawn)
        self._accelerator.backward(losses["loss"])
        norm = nn.utils.clip_grad_norm_(self._parameters, self._options.clip, foreach=True)
        self._optimizer.step()
        if self._average is not None:
            with torch.no_grad():
                away = torch._foreach_sub(self._average.shadow_params, [value.detach() for value in self._parameters])  # noqa: SLF001 - there is no other
                torch._foreach_mul_(away, self._shrink)
                torch._foreach_sub_(self._average.shadow_params, away)
        self._losses.stepped(self._parameters)
        self._names = list(losses)
        return _row(torch.stack([value.detach() for value in losses.values()]), norm)

    def _told(self, step: int, row: Tensor) -> None:
        self._pending.append((step + 1, self._names, row))
        if len(self._pending) >= self._fetch:
            self._note()

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
            self._say(f"{self._name}: going on after step {step} of {self._options.steps}, from {found[-1]}")
        if accelerator.is_main_process:
            lines = curve.read_text().splitlines(keepends=True)[:step] if curve.is_file() else []
            curve.write_text("".join(lines))
        return step

    def _save(self, step: int) -> None:
        """Make a checkpoint, which appears whole under its name, and remove the one before."""
        self._note()  # nothing that diverged is kept
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
            f"{self._name}: at step {step} the loss is {loss}, or its gradient is not finite. {kept}.\n"
            "  Lower learning_rate or clip, raise warmup, or take mixed_precision: no; a changed recipe trains from the start."
        )

    # What is told.

    def _note(self) -> None:
        """Fetch the losses of the steps since the last time, all at once."""
        pending, self._pending = self._pending, []
        fetched = torch.stack([row for *_, row in pending]).tolist() if pending else []
        for (step, names, _), (*means, norm) in zip(pending, fetched, strict=True):
            losses = dict(zip(names, means, strict=True))
            # An infinite gradient is how fp16's loss scaling finds its scale; it skips the step itself.
            if not math.isfinite(losses["loss"]) or not (math.isfinite(norm) or self._options.mixed_precision == "fp16"):
                self._diverged(step, losses["loss"])
            self._last = losses
            if self._accelerator.is_main_process:
                with (self._lesson.kept / CURVE).open("a") as file:
                    file.write(json.dumps({"step": step, **losses}) + "\n")
            if self._options.log_with:
                self._accelerator.log(losses, step)

    def _summarise(self) -> None:
        if not self._accelerator.is_main_process:
            self.metadata |= {"first": {"steps": 0}, "last": {"steps": 0}}
            return
        rows = [json.loads(line) for line in (self._lesson.kept / CURVE).read_text().splitlines()]
        count = max(1, min(50, len(rows) // 2))
        for place, some in (("first", rows[:count]), ("last", rows[-count:])):
            means = {name: sum(row[name] for row in some) / count for name in rows[0] if name != "step"}
            self.metadata[place] = {"steps": count, **means}

    def _refuse(self, student: nn.Module) -> None:
        accelerator, options = self._accelerator, self._options
        sharded = accelerator.distributed_type in _SHARDED
        if sharded and options.ema is not None:
            raise UnsupportedError(
                f"{options.verb}.ema: no process has all weights under {accelerator.distributed_type.value}, so none can average "
                "them.\n  Leave ema out."
            )
        counts = sum(value.numel() for value in student.parameters()), self._losses.frozen
        told = refuse_memory(*counts, options, accelerator.device, accelerator.num_processes if sharded else 1)
        self._say(f"{self._name}: {told}")


def _fetch(device: torch.device) -> int:
    """Steps whose losses are fetched together."""
    return 1 if device.type == "cpu" else _FETCH


def _row(means: Tensor, norm: Tensor | None) -> Tensor:
    """Losses and the gradient's norm, which is zero where a plugin keeps it to itself."""
    last = means.new_zeros(1) if norm is None else torch.as_tensor(norm, device=means.device).to(means.dtype).reshape(1)
    return torch.cat([means.detach(), last.detach()])
