"""Stage ``curve``: the denoiser's training curve, as a table and a picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from matplotlib.figure import Figure

WINDOW = 4
"""Logged losses per row of the table; one batch's loss is noisy."""


def read(log: Path) -> tuple[dict[int, float], dict[int, dict[str, float]]]:
    """Losses and watched scores by step; where a run was resumed, the later entry counts."""
    losses: dict[int, float] = {}
    scores: dict[int, dict[str, float]] = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if "watch" in entry:
            scores[entry["step"]] = entry["watch"]
        else:
            losses[entry["step"]] = entry["loss"]
    return dict(sorted(losses.items())), dict(sorted(scores.items()))


def averaged(losses: dict[int, float]) -> list[tuple[int, float]]:
    """Means over windows of logged steps: (last step, mean loss)."""
    steps = list(losses)
    windows = [steps[start : start + WINDOW] for start in range(0, len(steps), WINDOW)]
    return [(window[-1], sum(losses[step] for step in window) / len(window)) for window in windows]


def write(log: Path, table: Path, picture: Path) -> None:
    """Writes the curve as CSV and as a picture.

    Args:
        log: ``curve.jsonl`` of the denoiser's stage.
        table: Receives step, mean loss, and the shares right where watched.
        picture: Receives a PNG of both.

    """
    losses, scores = read(log)
    means = averaged(losses)
    rows: list[tuple[object, ...]] = [(step, f"{loss:.5f}", "", "") for step, loss in means]
    rows += [(step, "", some["all-single"], some["two"]) for step, some in scores.items()]
    rows.sort(key=lambda row: (row[0], row[1] == ""))
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "loss", "single_right", "two_right"))
        writer.writerows(rows)
    figure = Figure(figsize=(7, 3), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([step for step, _ in means], [loss for _, loss in means])
    left.set(xlabel="step", ylabel="loss (min-SNR weighted)", yscale="log")
    for group, label in (("all-single", "one object"), ("two", "two objects")):
        right.plot(list(scores), [some[group] for some in scores.values()], marker="o", label=label)
    right.set(xlabel="step", ylabel="share right, 32 prompts each", ylim=(0, 1))
    right.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
