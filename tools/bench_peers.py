"""Compare a bundle with peers that need other versions of the libraries than this project, each in an environment of its own.

`python -m tools.bench_peers bundles/demo` makes the environments (kept below the cache folder), has each peer export the bundle's
source model, and times them interleaved with the bundle: same prompt, noise, steps, size and guidance. A peer that can no longer
be installed, export or draw is in the table too, with the last line of the reason. Run it in the folder of the bundle's recipe.
The bundle and diffusers draw in this process, each peer in one of its own, since their libraries exclude each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from PIL import Image

from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from exporter import bench, figures, machine, show
from exporter.baseline import source
from exporter.stopwatch import Stopwatch

#: Seconds that installing, exporting or loading may take.
PATIENCE = 900
_WORKER = Path(__file__).with_name("peer_worker.py")


class PeerError(Exception):
    """A peer cannot take part; the text is the last line of why."""


@dataclass(frozen=True)
class Place:
    """An environment: what is installed after torch, and how it exports a diffusers folder."""

    requirements: tuple[str, ...]
    export: tuple[str, ...]


#: The newest versions that go together, and what their own documentation says to install.
PLACES = {
    "onnx": Place(
        ("optimum-onnx[onnxruntime]==0.1.0", "diffusers==0.39.0", "transformers==4.57.6"),
        ("export", "onnx", "--task", "text-to-image", "--model"),
    ),
    "openvino": Place(
        ("optimum-intel[openvino]==2.2.0", "diffusers", "openvino-genai"),
        ("export", "openvino", "--task", "text-to-image", "--weight-format", "fp32", "--model"),
    ),
}
#: Peer, as the worker knows it → its environment.
PEERS = {
    "optimum-onnx": "onnx",
    "optimum-intel": "openvino",
    "optimum-intel-bf16": "openvino",
    "openvino-genai": "openvino",
    "openvino-genai-bf16": "openvino",
}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="Only this one; repeat for several.")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Rounds that count.")
@click.option("--steps", type=int, help="Of the sampler; the bundle's default unless given.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every figure as JSON.")
def main(bundle: Path, peers: tuple[str, ...], repeats: int, steps: int | None, json_file: Path | None) -> None:
    """Time BUNDLE and its peers in turns."""
    chosen, absent = peers or tuple(PEERS), dict[str, str]()
    opened = Bundle.open(bundle)
    task = bench.task(opened, steps)
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "t2iexport-peers"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="t2iexport-peers-")))
        save_source(opened, folder / "model")
        field = stack.enter_context(bench.contestants(bundle, ["diffusers"], task))
        noise = stack.enter_context(Pipeline.open(bundle)).seeded(bench.SEED, 1, task.height, task.width)()
        np.save(folder / "noise.npy", noise)
        exports: dict[str, Path | str] = {}
        for name in chosen:
            place = PEERS[name]
            if place not in exports:
                click.echo(f"installing and exporting: {place}", err=True)
                exports[place] = _prepared(root / place, PLACES[place], folder / "model", folder / place)
            made = exports[place]
            if isinstance(made, str):
                absent[name] = made
                continue
            try:
                field.append(stack.enter_context(peer(name, root / place, made, folder, task)))
            except PeerError as error:
                absent[name] = str(error)
        timings, pictures = bench.race(field, [1], repeats, folder, lambda sentence: click.echo(sentence, err=True))
    reference = pictures["diffusers"]
    report = bench.Report(
        task=task,
        repeats=repeats,
        reference="diffusers",
        timings=timings,
        psnr={name: bench.likeness(made, reference) for name, made in pictures.items()},
        cold={},
        environment=machine.environment(),
    )
    facts = {name: value for name, value in figures.tables(report).items() if not name.startswith("where the time")}
    rows = [{"peer": name, "reason": reason} for name, reason in absent.items()]
    show.show(facts | ({"not measured": rows} if rows else {}))
    if json_file:
        show.write_json(json_file, figures.content(report) | {"not measured": absent})


def save_source(bundle: Bundle, folder: Path) -> None:
    """Write the source model as a diffusers folder that older libraries read whole.

    transformers 5 writes a text tower without the prefix `text_model.`, and tokenizers as one file. transformers 4 finds no
    weights in the former and goes on with random ones; the latter it cannot read.
    """
    _, family = source(bundle)
    pipeline = family.pipeline()
    pipeline.register_modules(scheduler=pipeline.scheduler)  # assigned after construction, it is not in the folder's index
    pipeline.save_pretrained(folder)
    for tower, name in family.towers.items():
        prefix_weights(folder / tower / "model.safetensors")
        content = json.loads(getattr(pipeline, name).backend_tokenizer.to_str())["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["merges"]]
        (folder / name / "vocab.json").write_text(json.dumps(content["vocab"], ensure_ascii=False), encoding="utf-8")
        (folder / name / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def prefix_weights(file: Path) -> None:
    """Give a text tower's weights the names that every version of transformers knows."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - torch

    known = ("text_model.", "text_projection.")
    named = {name if name.startswith(known) else f"text_model.{name}": found for name, found in load_file(file).items()}
    save_file(named, file, metadata={"format": "pt"})


def install(folder: Path, place: Place) -> None:
    """Make an environment, unless it is there: torch of the version that runs here first, then the rest beside it.

    Raises:
        PeerError: it cannot be installed, or only with NVIDIA's libraries, which a comparison on the processor has no use for.

    """
    if (folder / "done").is_file() and (folder / "done").read_text() == "\n".join(place.requirements):
        return
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    (folder / "constraints.txt").write_text(f"{torch}\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--constraint", str(folder / "constraints.txt")]
    for wanted in ((torch,), place.requirements):
        plan = folder / "plan.json"
        _call([*pip, "--dry-run", "--report", str(plan), *wanted])
        refuse_cuda(json.loads(plan.read_text()))
        _call([*pip, *wanted])
    (folder / "done").write_text("\n".join(place.requirements))


def refuse_cuda(plan: dict[str, Any]) -> None:
    """Raise PeerError where pip's plan holds libraries for GPUs."""
    names = sorted(item["metadata"]["name"] for item in plan["install"])
    if found := [name for name in names if name.startswith("nvidia-") or name == "triton"]:
        count = f"{found[0]} and {len(found) - 1} more for GPUs"
        raise PeerError(f"would install {count}; let pip know where torch's build for processors is")


def _prepared(home: Path, place: Place, model: Path, out: Path) -> Path | str:
    """The exported model, or why there is none."""
    try:
        install(home, place)
        _call([str(home / "bin" / "optimum-cli"), *place.export, str(model), str(out)])
    except PeerError as error:
        return str(error)
    return out


def _call(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=_environment())
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{Path(command[0]).name} {command[1]} took more than {PATIENCE} s") from error
    if done.returncode:
        raise PeerError(last_line(done.stderr or done.stdout) or f"exit status {done.returncode}")


def _environment() -> dict[str, str]:
    """Only what the peer's own environment has may be found there, and everything is on this machine."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}


def last_line(text: str) -> str:
    """The last line with a word in it, cut to a table's width."""
    lines = [line.strip() for line in text.splitlines() if any(letter.isalpha() for letter in line)]
    return lines[-1][:200] if lines else ""


@contextlib.contextmanager
def peer(name: str, home: Path, model: Path, folder: Path, task: bench.Task) -> Iterator[bench.Contestant]:
    """Start a peer's process, wait until it has loaded, and end it at the end of the `with`."""
    log = (folder / f"{name}.log").open("w+")
    command = [str(home / "bin" / "python"), str(_WORKER), name, str(model)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
    with log, subprocess.Popen(command, **pipes, text=True, env=_environment()) as process:

        def answer() -> dict[str, Any]:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                log.seek(0)
                raise PeerError(last_line(log.read()) or "it ended without a word")
            return json.loads(line)

        def draw(batch: int) -> list[Image.Image]:
            out = folder / f"{name}.npy"
            ask = task.wishes | {"prompt": task.prompt, "count": batch, "noise": str(folder / "noise.npy"), "out": str(out)}
            if process.stdin:
                process.stdin.write(json.dumps(ask) + "\n")
                process.stdin.flush()
            answer()
            return [Image.fromarray(image) for image in np.load(out)]

        try:
            versions = answer()["ready"]
            draw(1)
            library = next(each for each in ("openvino", "onnxruntime") if each in versions)
            yield bench.Contestant(name, f"{library} {versions[library]}", draw, Stopwatch())
        finally:
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            process.terminate()


if __name__ == "__main__":
    try:
        main()
    except (UnsupportedError, PeerError) as error:
        sys.exit(f"error: {error}")
