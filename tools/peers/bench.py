"""Compare a bundle with peers that need other versions of the libraries than this project, each in an environment of its own.

`python -m tools.peers.bench bundles/demo` makes the environments, has each peer export the bundle's source model (both are kept
below the cache folder), and times each peer in turns with the bundle: same prompt, noise, steps, size and guidance. Two are in
memory at a time, so a ratio is of one race, and of no two peers. A peer that can no longer be installed, export or draw is in the
table too, with the last line of the reason. Run it in the folder of the bundle's recipe. The bundle and diffusers draw in this
process, each other peer in one of its own, since their libraries exclude each other.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
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
from exporter import machine
from exporter.bench import run
from exporter.bench.diffusers import KINDS, source
from exporter.bench.stopwatch import Stopwatch
from exporter.layouts.folder import write_vocabulary
from exporter.parity.metrics import PERFECT
from exporter.report import console

#: Seconds that installing, exporting or loading may take.
PATIENCE = 900
_DONE = "done.json"
_WORKER = Path(__file__).with_name("worker.py")


class PeerError(Exception):
    """A peer cannot take part; the text is the last line of why."""


@dataclass(frozen=True)
class Place:
    """An environment: what is installed after torch and taken away again, and how it exports a diffusers folder."""

    requirements: tuple[str, ...]
    export: tuple[str, ...]
    without: tuple[str, ...] = ()


#: The newest versions that go together, and what their own documentation says to install.
PLACES = {
    "onnx": Place(
        ("optimum-onnx[onnxruntime]==0.1.0", "diffusers==0.39.0", "transformers==4.57.6"),
        ("export", "onnx", "--task", "text-to-image", "--model"),
    ),
    "openvino": Place(
        ("optimum-intel[openvino]==2.2.0", "diffusers", "openvino-genai"),
        ("export", "openvino", "--task", "text-to-image", "--weight-format", "fp32", "--model"),
        # Its package in the ordinary index is made for torch with CUDA; beside torch for processors it fails to load.
        ("torchvision",),
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
@click.option("--peer", "peers", multiple=True, type=click.Choice([*KINDS, *PEERS]), help="Only this one; repeat for several.")
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Rounds that count.")
@click.option("--steps", type=int, help="Of the sampler; the bundle's default unless given.")
@click.option("--prepare", is_flag=True, help="Only install and export, which a later run finds.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every figure as JSON.")
def main(bundle: Path, peers: tuple[str, ...], repeats: int, steps: int | None, *, prepare: bool, json_file: Path | None) -> None:
    """Race BUNDLE against each of its peers in turn."""
    opened, absent = Bundle.open(bundle), dict[str, str]()
    chosen = peers or (*KINDS, *PEERS)
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "t2iexport-peers"
    exports = {place: exported(opened, root, place) for place in dict.fromkeys(PEERS[name] for name in chosen if name in PEERS)}
    if prepare:
        console.show(
            {"exports": [{"place": place, "seconds, peak bytes": str(made)} for place, made in _exports(exports).items()]}
        )
        return
    task, surroundings = run.task(opened, steps), machine.environment()
    rows, figures = [], dict[str, Any]()
    with TemporaryDirectory(prefix="t2iexport-peers-") as temporary:
        folder = Path(temporary)
        with Pipeline.open(bundle) as pipeline:
            np.save(folder / "noise.npy", pipeline.seeded(run.SEED, 1, task.height, task.width)())
        with run.contestants(bundle, ["diffusers"], task) as (own, model):
            reference = model.draw(1)
            figures["bundle"] = {"cold": run.start(own).model_dump(), "psnr": run.likeness(own.draw(1), reference)}
        rows.append(_row(str(bundle), own.runs_on, figures["bundle"]))
        for name in chosen:
            gc.collect()  # a source model is a knot of references
            click.echo(f"against {name}", err=True)
            made = exports.get(PEERS.get(name, ""), bundle)
            try:
                with _field(name, bundle, task, root, made, folder) as (own, rival):
                    (ours, theirs), pictures = run.race((own, rival), [1], repeats, folder)
                    found = {"psnr": run.likeness(pictures[name], reference), "cold": run.start(rival).model_dump()}
            except PeerError as error:
                absent[name] = str(error)
                continue
            found |= {"ratio": float(np.median(theirs.seconds / ours.seconds)), "runs_on": rival.runs_on}
            figures[name] = found | {"seconds": theirs.percentile(50), "bundle_seconds": ours.percentile(50)}
            rows.append(_row(name, rival.runs_on, figures[name]))
            click.echo("  ".join(f"{key} {value}" for key, value in rows[-1].items()), err=True)
    guidance = "" if task.guidance_scale is None else f", guidance {task.guidance_scale:g}"
    facts: dict[str, Any] = {
        "machine": surroundings.sentence,
        "task": f"{task.prompt!r}, {task.steps} steps, {task.width} x {task.height} px{guidance}",
        "measured": f"each peer and the bundle in turns, {repeats} rounds after {run.WARM_UP} to warm up",
        "PSNR": "of the picture against diffusers in fp32, on the same noise",
        "peers": rows,
    }
    if absent:
        facts["not measured"] = [{"peer": name, "reason": reason} for name, reason in absent.items()]
    console.show(facts)
    if json_file:
        about = {"environment": surroundings.model_dump(mode="json"), "task": task.model_dump(mode="json")}
        console.write_json(json_file, about | {"peers": figures, "exports": _exports(exports), "not measured": absent})


def _row(name: str, runs_on: str, found: dict[str, Any]) -> dict[str, str]:
    times = {key: f"{found[key] * 1e3:.4g}" if key in found else "" for key in ("seconds", "bundle_seconds")}
    return {
        "who": name,
        "runs on": runs_on,
        "times as long": f"{found['ratio']:.2f}" if "ratio" in found else "",
        "ms": times["seconds"],
        "the bundle's ms": times["bundle_seconds"],
        "PSNR dB": "exact" if found["psnr"] >= PERFECT else f"{found['psnr']:.1f}",
        "first picture s": f"{found['cold']['seconds']:.1f}",
        "peak MB": f"{found['cold']['peak'] / 1e6:.0f}",
    }


@contextlib.contextmanager
def _field(
    name: str, bundle: Path, task: run.Task, root: Path, model: Path | str, folder: Path
) -> Iterator[tuple[run.Contestant, run.Contestant]]:
    """The bundle and one peer, which is the only one in memory."""
    if name in KINDS:
        with run.contestants(bundle, [name], task) as (own, rival):
            yield own, rival
        return
    if isinstance(model, str):
        raise PeerError(model)
    with run.contestants(bundle, [], task) as (own,), peer(name, root / PEERS[name], model, folder, task) as rival:
        yield own, rival


def exported(bundle: Bundle, root: Path, place: str) -> Path | str:
    """A bundle's source model as an environment exports it, kept below `root` by content; or why there is none."""
    _, family = source(bundle)
    networks = sorted({"unet", "vae", "scheduler", *family.towers, *family.towers.values()})
    told = json.dumps([place, PLACES[place].export, PLACES[place].requirements, *map(family.checkpoint.digest, networks)])
    out = root / "exports" / hashlib.sha256(told.encode()).hexdigest()[:16]
    if (out / _DONE).is_file():
        return out
    click.echo(f"installing, and exporting with {place}", err=True)
    partial = out.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        install(root / place, PLACES[place])
        with TemporaryDirectory(prefix="t2iexport-peers-") as folder:
            save_source(bundle, Path(folder))
            command = [str(root / place / "bin" / "optimum-cli"), *PLACES[place].export, folder, str(partial)]
            took = machine.cold(command, _environment(), str(root / place / "bin" / "python"))
    except (PeerError, UnsupportedError) as error:
        return last_line(str(error))
    (partial / _DONE).write_text(took.model_dump_json())
    partial.replace(out)
    return out


def _exports(made: dict[str, Path | str]) -> dict[str, Any]:
    """Seconds and peak memory of each export that was made, or why it was not."""
    return {place: json.loads((out / _DONE).read_text()) if isinstance(out, Path) else out for place, out in made.items()}


def save_source(bundle: Bundle, folder: Path) -> None:
    """Write the source model as a diffusers folder that older libraries read whole.

    transformers 5 writes a text tower without the prefix `text_model.`, and tokenizers as one file. transformers 4 finds no
    weights in the former and goes on with random ones; the latter it cannot read.
    """
    _, family = source(bundle)
    pipeline = family.reference().pipeline
    pipeline.register_modules(scheduler=pipeline.scheduler)  # assigned after construction, it is not in the folder's index
    pipeline.save_pretrained(folder)
    for tower, name in family.towers.items():
        prefix_weights(folder / tower / "model.safetensors")
        write_vocabulary(getattr(pipeline, name), folder / name)


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
    for unwanted in place.without:
        _call(
            [
                str(folder / "bin" / "python"),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "uninstall",
                "--yes",
                "--quiet",
                unwanted,
            ]
        )
    (folder / "done").write_text("\n".join(place.requirements))


def refuse_cuda(plan: dict[str, Any]) -> None:
    """Raise PeerError where pip's plan holds libraries for GPUs."""
    names = sorted(item["metadata"]["name"] for item in plan["install"])
    if found := [name for name in names if name.startswith("nvidia-") or name == "triton"]:
        count = f"{found[0]} and {len(found) - 1} more for GPUs"
        raise PeerError(f"would install {count}; let pip know where torch's build for processors is")


def _call(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=_environment())
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{Path(command[0]).name} {command[1]} took more than {PATIENCE} s") from error
    if done.returncode:
        raise PeerError(last_line(done.stderr or done.stdout) or f"exit status {done.returncode}")


def _environment() -> dict[str, str]:
    """Only what the peer's own environment has may be found there, and everything is on this machine."""
    return {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}


def last_line(text: str) -> str:
    """The last line with a word in it, cut to a table's width."""
    lines = [line.strip() for line in text.splitlines() if any(letter.isalpha() for letter in line)]
    return lines[-1][:200] if lines else ""


@contextlib.contextmanager
def peer(name: str, home: Path, model: Path, folder: Path, task: run.Task) -> Iterator[run.Contestant]:
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

        out = folder / f"{name}.npy"

        def asked(batch: int) -> dict[str, Any]:
            return task.wishes | {"prompt": task.prompt, "count": batch, "noise": str(folder / "noise.npy"), "out": str(out)}

        def draw(batch: int) -> list[Image.Image]:
            if process.stdin:
                process.stdin.write(json.dumps(asked(batch)) + "\n")
                process.stdin.flush()
            answer()
            return [Image.fromarray(image) for image in np.load(out)]

        try:
            versions = answer()["ready"]
            draw(1)
            library = next(each for each in ("openvino", "onnxruntime") if each in versions)
            once = (str(_WORKER), name, str(model), json.dumps(asked(1)))
            yield run.Contestant(name, f"{library} {versions[library]}", draw, Stopwatch(), once, str(home / "bin" / "python"))
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
