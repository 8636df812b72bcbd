"""A training loop that resumes exactly, shared by every stage.

All randomness of a step is derived from the step's number, so a run that was
cut and resumed computes the same weights as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tools.demo.training import ranks

_MEASURED_FROM, _MEASURED_TO = 20, 60
_LOG_EVERY = 50

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """The network itself, its weights laid out channels last."""
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's overloads lack it alone


@dataclass
class Plan:
    """How long and how fast to train.

    Attributes:
        steps: Steps in all, or None to derive them from ``hours`` and the
            speed measured over the first steps.
        hours: Planned wall-clock time, used only when ``steps`` is None.
        peak: Highest learning rate.
        warmup: Steps over which the rate rises to the peak; then it falls
            along a cosine to ``floor`` times the peak.
        floor: Final learning rate as a share of the peak.
        clip: Largest gradient norm.
        decay_ema: Decay of the weights' moving average per step; 0 for none.
        save_every: Steps between checkpoints.
        watch_every: Seconds between calls of the watcher.
        stop_at: Step at which to stop as if cut, for tests; None to finish.

    """

    steps: int | None
    hours: float = 1.0
    peak: float = 1e-3
    warmup: int = 200
    floor: float = 0.0
    clip: float = 1.0
    decay_ema: float = 0.0
    save_every: int = 500
    watch_every: float = 600.0
    stop_at: int | None = None


@dataclass
class Run:
    """What a stage trains and where it keeps it.

    Attributes:
        modules: The trained modules by name.
        folder: Holds ``checkpoint.pt`` and ``curve.jsonl``.
        ema: Moving average of the weights, per module name; filled by ``fit``.

    """

    modules: dict[str, torch.nn.Module]
    folder: Path
    ema: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """Path of the latest checkpoint."""
        return self.folder / "checkpoint.pt"


def save_atomically(content: object, path: Path) -> None:
    """Saves with ``torch.save`` so that a cut never leaves a torn file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def learning_rate(plan: Plan, step: int, steps: int) -> float:
    """The rate of a step: linear warm-up, then a cosine to the floor."""
    if step < plan.warmup:
        return plan.peak * (step + 1) / plan.warmup
    progress = min(1.0, (step - plan.warmup) / max(1, steps - plan.warmup))
    return plan.peak * (plan.floor + (1 - plan.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def _update_ema(run: Run, decay: float, step: int) -> None:
    """Moves the average; early steps count more so that it does not lag the start."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for name, module in run.modules.items():
        state = module.state_dict()
        if name not in run.ema:
            run.ema[name] = {key: value.clone() for key, value in state.items()}
        keys = [key for key, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([run.ema[name][k] for k in keys], [state[k] for k in keys], share)


def _save(run: Run, optimizer: torch.optim.Optimizer, step: int, steps: int | None) -> None:
    content = {
        "step": step,
        "steps": steps,
        "modules": {name: module.state_dict() for name, module in run.modules.items()},
        "ema": run.ema,
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
    }
    save_atomically(content, run.checkpoint)


def _restore(run: Run, optimizer: torch.optim.Optimizer) -> tuple[int, int | None]:
    content: dict[str, Any] = torch.load(run.checkpoint, weights_only=True)
    for name, module in run.modules.items():
        module.load_state_dict(content["modules"][name])
    run.ema = content["ema"]
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["rng"])
    return content["step"], content["steps"]


class _Planner:
    """Turns planned hours into a number of steps, from the speed at the start."""

    def __init__(self, plan: Plan, first: int) -> None:
        self._plan = plan
        self._first = first
        self._since = time.monotonic()

    def steps(self, step: int) -> int | None:
        """The planned number of steps, or None while it is being measured."""
        if step - self._first == _MEASURED_FROM:
            self._since = time.monotonic()
        if step - self._first < _MEASURED_TO:
            return None
        each = (time.monotonic() - self._since) / (_MEASURED_TO - _MEASURED_FROM)
        steps = ranks.agreed(int(self._plan.hours * 3600 / each))
        print(f"planned {steps} steps of {each:.3f} s", flush=True)
        return steps


def _descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer, rate: float, clip: float) -> None:
    """One step of the optimizer, on gradients averaged over the processes."""
    (group,) = optimizer.param_groups
    group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    ranks.average_gradients(group["params"])
    torch.nn.utils.clip_grad_norm_(group["params"], clip)
    optimizer.step()


class _Keeper:
    """Keeps the log, and calls the watcher when it is time."""

    def __init__(self, run: Run, plan: Plan, *, resume: bool, watch: Callable[[int], dict[str, float]] | None) -> None:
        self._log = run.folder / "curve.jsonl"
        self._plan, self._watch = plan, watch
        self._started = self._watched = time.monotonic()
        if not resume and ranks.rank() == 0:
            self._log.write_text("")

    def _write(self, entry: dict[str, Any]) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(entry) + "\n")

    def note(self, step: int, figures: dict[str, float]) -> None:
        """Logs every 50th step's figures; watches when the time has come."""
        now = time.monotonic()
        if step % _LOG_EVERY == 0:
            rounded = {name: round(value, 6) for name, value in figures.items()}
            self._write({"step": step, "s": round(now - self._started, 1), **rounded})
        if self._watch is not None and now - self._watched > self._plan.watch_every:
            self._write({"step": step, "watch": self._watch(step)})
            self._watched = time.monotonic()


def fit(
    run: Run,
    plan: Plan,
    loss_at: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    *,
    resume: bool,
    watch: Callable[[int], dict[str, float]] | None = None,
) -> None:
    """Trains the run's modules.

    Args:
        run: Modules, folder and (filled here) moving averages.
        plan: Length, learning rate, checkpointing.
        loss_at: Computes the loss of a share of data, and figures for the
            log.  Its randomness must come from torch's generator (seeded here)
            or from the share's number: the step times the number of processes
            plus the process's own.
        resume: Continue from the latest checkpoint; without one, start.
        watch: Called every ``plan.watch_every`` seconds with the step; its
            figures go to the log.

    """
    run.folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in run.modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=plan.peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    step, steps = 0, plan.steps
    if resume and run.checkpoint.exists():
        step, planned = _restore(run, optimizer)
        steps = plan.steps or planned
    planner, keeper = _Planner(plan, step), _Keeper(run, plan, resume=resume, watch=watch)
    while (steps is None or step < steps) and step != plan.stop_at:
        steps = steps or planner.steps(step)
        share = step * ranks.count() + ranks.rank()
        torch.manual_seed(share)
        rate = learning_rate(plan, step, steps or 10**9)
        loss, figures = loss_at(share)
        _descend(loss, optimizer, rate, plan.clip)
        if ranks.rank() == 0:
            if plan.decay_ema:
                _update_ema(run, plan.decay_ema, step)
            keeper.note(step + 1, {"rate": rate, "loss": loss.item(), **figures})
            if (step + 1) % plan.save_every == 0 or step + 1 == steps:
                _save(run, optimizer, step + 1, steps)
        step += 1
