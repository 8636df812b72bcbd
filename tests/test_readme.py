"""Every console command of the README runs, and every file that it links to is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TOUR = "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
PROGRAMS = {"t2iexport": str(Path(sys.executable).parent / "t2iexport"), "python": sys.executable}


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """A folder that looks like a checkout, so that bundles of the tests stay out of the real one."""
    folder = tmp_path_factory.mktemp("tour")
    for name in ("recipes", "tools", "engines", "exporter"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.timeout(1200)  # it builds two bundles, with an empty cache
def test_the_tour(playground, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for line in TOUR.strip().splitlines():
        program, *arguments = shlex.split(line)
        done = subprocess.run([PROGRAMS[program], *arguments], cwd=playground, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (playground / "out.png").stat().st_size > 500
    assert (playground / "star.png").stat().st_size > 500
    assert (playground / "again.png").read_bytes() == (playground / "filled.png").read_bytes()
    assert sum(1 for _ in (playground / "steps").glob("step_*_0.png")) == 25


def headings(path: Path) -> list[str]:
    """The headings of a page; lines inside code blocks are comments there, not headings."""
    return re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it: lower case, punctuation left out, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere():
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "recipes" / "demo" / "README.md"]:
        for target, section in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
            page = path.parent / target if target else path
            assert page.exists(), f"{path.name}: {target}"
            assert not section or section in map(anchor, headings(page)), f"{path.name}: {target}#{section}"


def test_sections_that_recipes_name_are_there():
    for path in ROOT.glob("recipes/*.yaml"):
        for page, section in re.findall(r'((?:README|docs/\w+)\.md), "(.*?)"', path.read_text()):
            assert section in headings(ROOT / page), f'{path.name}: {page}, "{section}"'


def test_the_recipe_example_is_a_recipe():
    from exporter.recipe.schema import Recipe

    example = next(block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    recipe = Recipe.parse(example, "example")
    assert recipe.sampler.steps == (10,)
    assert [name for target in recipe.targets for name in target] == ["onnxruntime", "tensorrt_rtx"]


def test_no_figure_is_missing():
    assert not re.findall(r"@[A-Z]+@", README)
