"""Recipes by name: those of the folder `recipes` here, and those that come with the package.

These are the folder `recipes` beside the package, in a checkout and where a wheel was installed.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from engines.errors import RecipeError

#: What the name of a recipe's file ends in.
SUFFIXES = (".yaml", ".yml")
#: What the name of a sweep's file begins with there, which is no recipe.
SWEEP = "sweep-"


def folder() -> Path:
    """The folder of the recipes that come with the package.

    Raises:
        RecipeError: the package was installed without them.

    """
    found = Path(str(resources.files("exporter"))).parent / "recipes"
    if not found.is_dir():
        raise RecipeError(f"the recipes of t2iexport are not in {found}; install the package again")
    return found


def recipes() -> dict[str, Path]:
    """Bare name → file, sorted; one in `recipes` of the working directory comes before the package's of the same name."""
    files = {file.stem: file for place in (folder(), Path("recipes")) for file in place.glob("*.yaml")}
    return {name: file for name, file in sorted(files.items()) if not name.startswith(SWEEP)}


def is_bare(path: Path) -> bool:
    """Whether `path` reads as a name to look up, such as `demo`, and not as the path of a recipe's file."""
    return len(path.parts) == 1 and path.suffix not in SUFFIXES


def find(path: Path) -> Path:
    """The file that a path or a bare name stands for; a file that is there comes before a name.

    Raises:
        RecipeError: there is none; says what it is close to.

    """
    if path.exists() and not path.is_dir():
        return path
    known, bare = recipes(), is_bare(path)
    if bare and path.name in known:
        return known[path.name]
    beside = [] if bare else [str(file) for file in path.parent.glob("*.yaml")]
    close = difflib.get_close_matches(str(path), beside, n=1)
    close = close or difflib.get_close_matches(path.name if bare else path.stem, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "name a YAML file, or one of `t2iexport list recipes`, such as demo"
    raise RecipeError(f"{path}  is not a file{', nor the name of a recipe' if bare else ''}; {hint}")
