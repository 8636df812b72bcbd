"""One command that shows on any NVIDIA machine what this project's engines do there, beside torch.

    python -m tools.gpu.smoke --out smoke
    python -m tools.gpu.smoke --out smoke --phases models --models koala-700m --engines cuda,tensorrt_rtx
    python -m tools.gpu.smoke --out graphs-only --phases graphs --graphs graphs

Models are measured at full size, 1024 px, with random weights in half precision, which are made up on the spot: the demo's
network, KOALA-700M, KOALA-1B and SDXL; engines against diffusers in torch, eager and compiled, on the same numbers, interleaved
in one process. Further phases build and check the demo's bundles, sample in parallel, and distil SDXL into KOALA for some steps.

Every job is a process of its own with a time limit, and its results are on disk as soon as they are known: one JSON per job,
and at the end `result.json` and `table.md`. Models are prepared side by side; who measures stops the others meanwhile.
`prepare` makes weights and engines and lets torch compile, which `models` then finds. What fails is a result too, with its
words; the other jobs go on. Results that are there already are kept: name only what is missing to go on after an interruption.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from exporter import machine
from tools.gpu import table
from tools.gpu.record import wake

#: Name → what `model.source` takes, and the picture's side in pixels.
MODELS: Mapping[str, tuple[str, int]] = {
    "demo": ("recipes/demo", 64),
    "koala-700m": ("koala-700m", 1024),
    "koala-1b": ("koala-1b", 1024),
    "sdxl-base": ("sdxl-base", 1024),
}
PHASES = ("graphs", "prepare", "models", "demo", "distill")
ENGINES = "cuda,cuda-nhwc,tensorrt_rtx"
#: Seconds after which a phase's jobs are ended, but for those of `--limit`.
LIMITS = {"graphs": 3600, "prepare": 300, "models": 420, "demo": 300, "distill": 240}


def _list(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    return [word for word in value.split(",") if word]


@click.command(help=__doc__)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder of engines and caches, tens of GB. [OUT/work]")
@click.option(
    "--graphs", type=click.Path(path_type=Path), help="Folder of graphs without weights, made where absent. [WORK/graphs]"
)
@click.option("--phases", default="models,demo,distill", callback=_list, show_default=True)
@click.option("--models", default=",".join(MODELS), callback=_list, show_default=True)
@click.option("--engines", "kinds", default=ENGINES, callback=_list, show_default=True, help="Of tools/gpu/runners.py.")
@click.option("--engines-of", "own_kinds", multiple=True, metavar="MODEL=NAME,NAME", help="Other engines for one model.")
@click.option("--variants-of", "own_variants", multiple=True, metavar="MODEL=NAME,NAME", help="Other variants for one model.")
@click.option("--variants", default="guided,plain,decoder", callback=_list, show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="Of torch.")
@click.option("--size", type=int, help="Side of the pictures. [64 for the demo, else 1024]")
@click.option("--source", help="Measure this model, a diffusers folder, in place of every model's own.")
@click.option("--batch", default=8, show_default=True, help="Most pictures in a batch of the variant plain.")
@click.option("--steps", default=25, show_default=True, help="Of an image.")
@click.option("--compile-mode", default="default", show_default=True, help="Of torch.compile; empty leaves it out.")
@click.option("--seconds", default=6.0, show_default=True, help="Of timing, for each comparison.")
@click.option("--rounds", default=30, show_default=True, help="At most, for each comparison.")
@click.option("--patience", default=240.0, show_default=True, help="Seconds to wait while another job measures.")
@click.option("--distill-steps", default=200, show_default=True)
@click.option("--distill-batch", default=1, show_default=True)
@click.option("--distill-models", default="sdxl-base,koala-700m", callback=_list, show_default=True, help="Teacher and cut.")
@click.option("--limit", "limits", multiple=True, metavar="PHASE=SECONDS")
def main(out: Path, work: Path | None, graphs: Path | None, phases: list[str], **options: Any) -> None:  # noqa: ANN401 - click's
    """Run the phases, and write what they found."""
    out.mkdir(parents=True, exist_ok=True)
    work = (work or out / "work").resolve()
    graphs = (graphs or work / "graphs").resolve()
    work.mkdir(parents=True, exist_ok=True)
    if unknown := [name for name in phases if name not in PHASES] + [name for name in options["models"] if name not in MODELS]:
        raise click.UsageError(f"there is no {unknown[0]}; phases are {', '.join(PHASES)}, models {', '.join(MODELS)}")
    limits = LIMITS | {name: int(seconds) for name, _, seconds in (each.partition("=") for each in options["limits"])}
    (out / "environment.json").write_text(json.dumps(_environment(), indent=1) + "\n")
    for phase in [name for name in PHASES if name in phases]:
        jobs = _jobs(phase, out.resolve(), work, graphs, options)
        print(f"{phase}: {', '.join(jobs)}; at most {limits[phase]} s", flush=True)
        run(jobs, out, work, limits[phase])
        _write(out)
    print((out / "table.md").read_text() if (out / "table.md").is_file() else "", flush=True)


def _jobs(phase: str, out: Path, work: Path, graphs: Path, options: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name of each job → its arguments."""
    models, kinds, cores = options["models"], options["kinds"], sorted(os.sched_getaffinity(0))

    def job(kind: str, **given: Any) -> list[str]:  # noqa: ANN401 - JSON
        return [kind, json.dumps(given, default=str)]

    def source(name: str) -> dict[str, Any]:
        own, side = MODELS[name]
        return {"model": options["source"] or own, "size": options["size"] or side, "batch": options["batch"]}

    places = {"out": out, "work": work}
    if phase == "graphs":
        return {
            f"{name}-{variant}": job("graphs", variant=variant, graphs=graphs / name, **source(name))
            for name in models
            for variant in options["variants"]
            if not (graphs / name / f"{variant}.json").is_file()
        }
    if phase in {"prepare", "models"}:
        kept = ("device", "steps", "compile_mode", "seconds", "rounds", "patience")
        rest = {**places, "graphs": graphs, **{name: options[name] for name in kept}}
        if phase == "prepare":
            rest |= {"prepare": True, "out": work / "prepared"}
        own, others = (dict(each.split("=") for each in options[name]) for name in ("own_kinds", "own_variants"))
        return {
            f"{name}{'-prepare' if phase == 'prepare' else ''}": job(
                "model", name=name, cores=cores[index :: len(models)] or cores, **source(name), **rest,
                kinds=own[name].split(",") if name in own else kinds,
                variants=others[name].split(",") if name in others else options["variants"],
            )
            for index, name in enumerate(models)
        }  # fmt: skip
    if phase == "demo":
        return {"demo-bundles": job("demo", kinds=kinds, pictures=4, patience=options["patience"], **places)}
    teacher, preset = options["distill_models"]
    about = {"steps": options["distill_steps"], "batch": options["distill_batch"], "device": options["device"]}
    size, patience = options["size"] or 1024, options["patience"]
    given = {"architecture": options["source"] or teacher, "preset": preset, "size": size, "patience": patience}
    return {"distill": job("distill", **given, **about, **places)}


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tools.gpu", *arguments]


def _variables(work: Path) -> dict[str, str]:
    """What torch compiled once is found again."""
    return {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}


def run(jobs: Mapping[str, Sequence[str]], out: Path, work: Path, limit: float) -> None:
    """Run jobs side by side, each with a log; one that does not end in time, or ends badly, is noted as having failed."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    for name, arguments in jobs.items():
        with (out / f"{name}.log").open("ab") as log:
            running[name] = subprocess.Popen(
                _command(arguments), stdout=log, stderr=log, start_new_session=True, env=_variables(work)
            )
    end = time.monotonic() + limit
    while running:
        for name, process in list(running.items()):
            late = time.monotonic() > end
            if process.poll() is None and not late:
                continue
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                wake(work / "gate")
            how = f"killed after {limit:.0f} s" if late else f"exit status {process.returncode}"
            if process.returncode:
                words = (out / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
                (out / f"{name}.failed.json").write_text(json.dumps({"error": how, "words": words}, indent=1) + "\n")
            else:
                (out / f"{name}.failed.json").unlink(missing_ok=True)
            print(f"{name}: {how}", flush=True)
            del running[name]
        time.sleep(0.2)


def _environment() -> dict[str, Any]:
    found: dict[str, Any] = machine.environment().model_dump()
    import torch  # noqa: PLC0415 - the wheel knows its own CUDA

    found |= {"cuda": f"CUDA {torch.version.cuda}", "cudnn": f"cuDNN {torch.backends.cudnn.version()}"}
    if program := shutil.which("nvidia-smi"):
        asked = ["--query-gpu=name,memory.total,driver_version,compute_cap,power.limit,clocks.max.sm", "--format=csv,noheader"]
        said = subprocess.run([program, *asked], capture_output=True, text=True, check=False).stdout.strip()
        found |= {"gpu": said.partition(",")[0], "driver": said}
    return found


def _write(out: Path) -> None:
    results: dict[str, Any] = {}
    for file in sorted(out.glob("*.json")):
        if file.name != "result.json":
            results[file.stem] = json.loads(file.read_text())
    (out / "result.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "table.md").write_text(table.page(results))


if __name__ == "__main__":
    main()
