"""`python -m tools.docs.run`: run the fenced commands of the pages in their order, as a reader with an empty cache does.

Tests run README's and docs/sampling.md's (tests/test_readme.py) and let click read all others (tests/test_pages.py); this runs
those as well, which takes hours of a CPU. What cannot run everywhere, or takes days, is named with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tools.docs.pages import ROOT

#: In this order, since later pages use what earlier ones build.
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("sampling", "recipes", "speed", "quantization", "compression", "gpu")))
PAGES += ("docs/debug.md", "docs/web.md", "CONTRIBUTING.md")
_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_PROGRAMS = ("t2iexport ", "python -m ", "make ", "pip install ")
#: What a command has in it → why it is not run here.
NEVER = {
    r"^pip install|^make \.venv": "installs into the environment that runs it; `make` and tests/test_wheel.py do it",
    r"^make |^python -m pytest": "is a target of make, which .ci/run runs or is asked for",
    r"tools\.gpu\.smoke": "needs an NVIDIA GPU",
    r"http\.server": "serves until somebody stops it",
    r"--onnxruntime-web": "takes a file that the reader fetched",
    r"demo-wrong": "looks into a bundle with a fault that was put in on purpose",
    r"[ =]([A-Z]{2,}|bundles/(new|old|demo-ddim-100|demo-ddpm-1000))\b(?! *=)": "has a place-holder for what the reader has",
}
#: The same, of what `--everything` runs.
LATER = {
    r"^t2iexport distill|tools\.(demo\.(ablate_|score|compare_models|train_reward|best_of)|measure\.leaps)": (
        "trains, or draws thousands: hours, days"
    ),
    r"tools\.measure\.full_size": "takes a network of full size: 20 GB of memory and a disk to match",
    r"^t2iexport web|tools\.measure\.web": "fetches onnxruntime-web from npm's registry; the second drives Chromium",
    r"tools\.peers\.bench\b": "installs other tools into environments of their own, from the network",
}


@dataclass(frozen=True)
class Command:
    """A fenced command: the page that it stands on, its text on one line, and why it is not run; empty where it is."""

    page: str
    line: str
    reason: str = ""


def commands(page: str, *, everything: bool = False) -> Iterator[Command]:
    """Every fenced command of a page, in its order; with `everything` those that take long are to be run too."""
    reasons = NEVER if everything else NEVER | LATER
    for language, block in _FENCED.findall((ROOT / page).read_text(encoding="utf-8")):
        if language not in {"", "console", "sh"}:
            continue
        for text in re.sub(r"\\\n", " ", block).splitlines():
            line = re.sub(r"\s+#.*", "", text).strip()
            if line.startswith(_PROGRAMS):
                yield Command(page, line, next((why for mark, why in reasons.items() if re.search(mark, line)), ""))


def run(command: Command, folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with a cache of its own, and this interpreter."""
    program, *arguments = shlex.split(command.line)
    place = {"t2iexport": [str(Path(sys.executable).parent / "t2iexport")], "python": [sys.executable]}[program]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    return subprocess.run([*place, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def playground(folder: Path) -> None:
    """Make a folder look like a checkout, so that what the commands write stays out of the real one."""
    for name in ("tools", "engines", "exporter"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("recipes", "docs"):  # which commands write to
        shutil.copytree(ROOT / name, folder / name)


@click.command()
@click.argument("pages", nargs=-1, type=click.Choice(PAGES))
@click.option("--list", "listing", is_flag=True, help="Only say what would be run, and what not, and why.")
@click.option("--everything", is_flag=True, help="Also run what takes days, the network or much memory.")
def main(pages: tuple[str, ...], *, listing: bool, everything: bool) -> None:
    """Run the fenced commands of PAGES, or of all; exit 1 where one fails."""
    chosen, failed = [each for page in PAGES for each in commands(page, everything=everything) if not pages or page in pages], 0
    with tempfile.TemporaryDirectory() as made:
        playground(Path(made))
        for command in chosen:
            if command.reason or listing:
                click.echo(f"{'not run' if command.reason else 'run'}  {command.page}: {command.line}")
                click.echo(f"         {command.reason}" if command.reason else "", nl=bool(command.reason))
                continue
            start = time.perf_counter()
            done = run(command, Path(made), Path(made) / "cache")
            failed += bool(done.returncode)
            click.echo(
                f"{'FAILED' if done.returncode else 'ok'}  {time.perf_counter() - start:.0f} s  {command.page}: {command.line}"
            )
            if done.returncode:
                click.echo(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    ran = sum(not command.reason for command in chosen)
    click.echo(f"{ran} {'would be ' * listing}run, {len(chosen) - ran} not, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
