"""README is short and true: its console commands and its Python run, and so do those of two pages of docs/."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engines import plugins
from exporter.recipe.schema import Recipe
from exporter.recipe.shipped import find

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TOUR = [README, *((ROOT / "docs" / page).read_text() for page in ("sampling.md", "integrations.md"))]
PROGRAMS = {"t2iexport": str(Path(sys.executable).parent / "t2iexport"), "python": sys.executable}
#: Something that was measured: a time, a size in decibels, a ratio or a share.
FIGURE = re.compile(r"\d[\d.]* (?:ms|s|dB|MB|GB|times)\b|\d%")
COMMAND = re.compile(r"`(?:t2iexport|python -m) |^(?:t2iexport|python -m) ", re.MULTILINE)


def fenced(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_every_figure_stands_beside_a_command():
    """In a table each row has its command; elsewhere the paragraph does, or the one before it for a table as printed."""
    for section in re.split(r"^## ", README, flags=re.MULTILINE):
        paragraphs = section.split("\n\n")
        for before, paragraph in zip(["", *paragraphs], paragraphs, strict=False):
            rows = paragraph.splitlines() if paragraph.startswith("|") else [paragraph]
            for index, row in enumerate(rows):
                told = row + (before if paragraph.startswith("```") else "")
                told += rows[index - 1] if row.endswith("| the same |") else ""
                assert not FIGURE.search(row) or COMMAND.search(told), f"no command for: {row}"


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """A folder that looks like a checkout, so that bundles of the tests stay out of the real one."""
    folder = tmp_path_factory.mktemp("tour")
    for name in ("recipes", "tools", "engines", "exporter"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(pages, folder):
    commands = [shlex.split(line) for page in pages for block in fenced(page, "console") for line in block.strip().splitlines()]
    scripts = [["python", "-c", block] for page in pages for block in fenced(page, "python")]
    assert len(commands) > 5
    assert len(scripts) == len(pages)
    for program, *arguments in [*commands, *scripts]:
        done = subprocess.run([PROGRAMS[program], *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program} {arguments}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.long
@pytest.mark.timeout(1200)  # it builds the demo, with an empty cache
def test_its_commands(playground, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run(TOUR[:1], playground)
    assert all((playground / name).stat().st_size > 500 for name in ("out.png", "star.png"))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it builds two bundles, with an empty cache
def test_the_tour(playground, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run(TOUR, playground)
    for name in ("out.png", "star.png", "image_0.png", "image_1.png", "star_in_mask.png"):
        assert (playground / name).stat().st_size > 500
    assert (playground / "again.png").read_bytes() == (playground / "filled.png").read_bytes()
    assert sum(1 for _ in (playground / "steps").glob("step_*_0.png")) == 25


def test_what_it_installs_builds_what_it_builds():
    extras = set(re.search(r"pip install '\.\[(.*?)\]'", README)[1].split(","))
    built = re.findall(r"^t2iexport build (\S+)$", "".join(fenced(README, "console")), re.MULTILINE)
    recipes = [Recipe.load(find(Path(name))) for name in built]
    needed = {plugins.load("backends", name).extra for recipe in recipes for target in recipe.targets for name in target}
    assert needed
    assert needed | {"compile"} <= extras


def test_its_python_loads_no_torch():
    (script,) = fenced(README, "python")
    imports = "\n".join(line for line in script.splitlines() if "import" in line)
    probe = f"{imports}\nimport sys; sys.exit('torch' in sys.modules)"
    assert imports
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


def test_no_figure_is_missing():
    assert not re.findall(r"@[A-Z]+@", README)
