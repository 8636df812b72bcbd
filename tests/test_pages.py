"""What pages tell readers to type exists: commands, options, recipes, fields, links and sections. None of it is run here."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from engines.__main__ import generate
from engines.serve.command import serve
from exporter.cli import verbs
from exporter.recipe.schema import Recipe
from exporter.recipe.shipped import find
from exporter.stages.plan import Plan

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("recipes/**/*.md"))]
CODE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:t2iexport|python -m|make|pip install) [^`\n]+)`")
#: A recipe's top level, for examples that leave out what they do not speak of.
REST = {"model": "{source: demo}", "sampler": "{steps: [4]}", "shapes": "{height: [64, 64, 64], width: [64, 64, 64]}"}


def whole(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fenced(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return CODE.findall(whole(page))


def commands(page: Path) -> list[str]:
    """Every command of a page, in a block or in a sentence; comments are left out."""
    shell = "\n".join(block for language, block in fenced(page) if language in {"", "console", "sh"})
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in re.sub(r"\\\n", " ", shell).splitlines()]
    starts = ("t2iexport ", "python -m ", "make ", "pip install ")
    return [line for line in lines if line.startswith(starts)] + INLINE.findall(CODE.sub("", whole(page)))


COMMANDS = [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in commands(page)]
#: Modules that are started by others, or are no programs of this project.
FOREIGN = {"venv", "pip", "pytest", "torch.distributed.run", "http.server"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists_with_its_options(line):
    program, *words = shlex.split(re.sub(r"\$\(.*?\)|\[,[^\]]*\]|…", "", line))
    if program == "make":
        targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words if "=" not in word} <= set(targets)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [extra for word in re.findall(r"(?:\.|t2iexport)\[(.*?)\]", line) for extra in word.split(",")]
        assert set(named) <= set(extras)
    elif program == "t2iexport":
        parsed(verbs, words, line)
    elif words[1] == "engines":
        parsed(*((serve, words[3:]) if words[2:3] == ["serve"] else (generate, words[2:])), line)
    elif words[1] not in FOREIGN:
        parsed(program_of(words[1]), words[2:], line)


def program_of(module: str) -> click.Command:
    """The click command that `python -m` of a tool starts."""
    found = importlib.import_module(f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module)
    return found.main


def parsed(command: click.Command, words: list[str], line: str) -> None:
    """Let click read the options, without asking whether files are there; a recipe must be, with every field that is set."""
    context = click.Context(command, info_name="x")
    while isinstance(command, click.Group) and words:
        name, *words = words
        if name == "--help":
            return
        command = command.get_command(context, name)
        assert command is not None, f"{line}: no verb {name}"
    options, extra, _ = command.make_parser(click.Context(command)).parse_args(words)
    assert not extra, f"{line}: {extra} is too much"
    recipes = [ROOT / word for word in words if re.fullmatch(r"recipes/[\w.-]+\.yaml", word) and "NAME" not in word]
    if command.name in {"build", "distill"} and re.fullmatch(r"[a-z0-9-]+", str(options.get("recipe"))):
        recipes.append(find(Path(options["recipe"])))
    for recipe in recipes:
        assert Recipe.load(recipe, options.get("assignments", ()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_recipe_that_is_named_is_there(page):
    for name in re.findall(r"\brecipes/[\w.-]+\.yaml", whole(page)):
        assert name == "recipes/NAME.yaml" or (ROOT / name).is_file(), f"{page.name}: {name}"


EXAMPLES = [(page, block) for page in PAGES for language, block in fenced(page) if language == "yaml"]


@pytest.mark.parametrize(("page", "block"), EXAMPLES, ids=lambda value: getattr(value, "name", str(value)[:40]))
def test_an_example_is_part_of_a_recipe(page, block):
    """As it stands, with what it leaves out; a list alone is a UNet's passes. What it names must be known, with its options."""
    lines = block.replace("…", "").strip("\n").splitlines()
    if lines[0].lstrip().startswith("- "):
        lines = ["components:", "  unet:", "    passes:", *(f"      {line.removeprefix('      ')}" for line in lines)]
    named = {line.partition(":")[0] for line in lines if line[:1].isalpha()}
    text = "\n".join([*lines, *(f"{key}: {value}" for key, value in REST.items() if key not in named)])
    assert Recipe.parse(text, page.stem)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_is_python(page):
    for language, block in fenced(page):
        if language == "python":
            compile(block, page.name, "exec")


PATH = re.compile(r"`((?:exporter|engines|tools|tests|docs|recipes)/[\w./-]*\w/?)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_are_named_are_there(page):
    for path in PATH.findall(whole(page)):
        assert (ROOT / path).exists() or (ROOT / f"{path}.yaml").exists(), f"{page.name}: {path}"


def test_the_walk_through_the_folders_leaves_none_out():
    walked = {Path(path) for path in PATH.findall(whole(ROOT / "docs/architecture.md"))}
    for package in ("exporter", "engines"):
        found = (ROOT / package).iterdir()
        inside = {path.relative_to(ROOT) for path in found if path.suffix == ".py" or (path / "__init__.py").exists()}
        assert inside - {Path(package) / "__init__.py"} <= walked


@pytest.mark.parametrize("name", ["demo", "demo-fused", "demo-image-to-image", "demo-int8", "demo-koala-700m", "demo-search"])
def test_the_walk_names_every_stage(name):
    cells = [line.split("|")[1] for line in whole(ROOT / "docs/architecture.md").splitlines() if line.startswith("| `")]
    walked = set(re.findall(r"`(\w+)", " ".join(cells)))
    assert {stage.verb for stage in Plan(Recipe.load(ROOT / f"recipes/{name}.yaml")).stages} <= walked


def headings(path: Path) -> list[str]:
    """The headings of a page; lines inside code blocks are comments there, not headings."""
    return re.findall(r"^#+ (.+)$", CODE.sub("", whole(path)), re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it: lower case, punctuation left out, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(path):
    for target, section in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", whole(path)):
        page = path.parent / target if target else path
        assert page.exists(), f"{path.name}: {target}"
        assert not section or section in map(anchor, headings(page)), f"{path.name}: {target}#{section}"


def test_sections_that_recipes_name_are_there():
    for path in ROOT.glob("recipes/*.yaml"):
        for page, section in re.findall(r'((?:README|docs/\w+)\.md), "(.*?)"', path.read_text()):
            assert section in headings(ROOT / page), f'{path.name}: {page}, "{section}"'


def test_the_changelog_says_one_thing_of_each_trained_model_and_the_pages_say_it_too():
    entries = re.findall(r"^- `(recipes/[\w-]+)`: (.*(?:\n  .*)*)", whole(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert len({name for name, _ in entries}) == len(entries) > 1
    told = whole(ROOT / "docs/compression.md") + whole(ROOT / "docs/decisions/0019-few-steps.md")
    for name, entry in entries:
        header = whole(ROOT / f"{name}.yaml")
        for count in re.findall(r"(\d+) of 1000", entry):
            assert re.search(rf"\b{count}\b", told + header), f"{name}: {count} of 1000 stands nowhere else"


def test_every_page_is_listed():
    listed = whole(ROOT / "docs/README.md")
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"({page.name})" in listed, f"docs/README.md does not name {page.name}"


def test_the_recipe_example_is_a_whole_recipe():
    example = next(block for language, block in fenced(ROOT / "docs/recipes.md") if language == "yaml")
    recipe = Recipe.parse(example, "example")
    assert recipe.sampler.steps == (10,)
    assert [name for target in recipe.targets for name in target] == ["onnxruntime", "tensorrt_rtx"]
