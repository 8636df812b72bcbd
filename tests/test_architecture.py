"""The laws: what may import what, how big a file may grow, what a plugin must have."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engines import plugins

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("engines/**/*.py"), *ROOT.glob("exporter/**/*.py")])
ALL = [*SOURCES, *sorted(ROOT.glob("tools/**/*.py")), *sorted(ROOT.glob("tests/**/*.py"))]
#: Beyond the wall: what the run time never imports.
COMPILE_ONLY = {"torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript", "safetensors", "huggingface_hub"}
COMPILE_ONLY |= {"exporter", "ruamel", "scipy"}
#: Vendor library → the one file that may import it, as the backend there says.
VENDORS = {
    library: f"engines/backends/{name}.py" for name, backend in plugins.known("backends").items() for library in backend.modules
}
#: Seconds of a CPU in which `import engines.pipeline` is done, and those of them that are its own. It takes 0.18 to 0.28, as the
#: processor's clock has it: numpy 0.07, pydantic 0.07, Pillow and tokenizers 0.02, and 0.05 of its own, mostly fields of models.
IMPORT_SECONDS, OWN_SECONDS = 0.3, 0.08
#: The rooms of exporter/, and what stands beside them, from the ground up: each may import what stands before it.
ORDER = (
    "recipe", "part", "machine", "cluster", "models", "graph", "onnx", "families", "schedulers", "reference", "parity", "scores",
    "reward", "caching", "pruning", "training", "quantization", "passes", "stages", "bench", "layouts", "report", "build",
    "noise", "sweep", "verbs", "cli",
)  # fmt: skip

#: What stands beside the four folders of code and the recipes.
TOP = {"engines", "exporter", "recipes", "tests", "tools", "docs", ".ci", ".gitignore"}
TOP |= {"pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
TOP |= {"Makefile", "constraints.txt", "Dockerfile.trt"}


def imports(path: Path) -> set[str]:
    """Top-level names of every import in a file, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", sorted(ROOT.glob("engines/**/*.py")), ids=str)
def test_the_run_time_never_reaches_over_the_wall(path):
    assert not tops(path) & COMPILE_ONLY


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_vendor_library_is_imported_in_one_file(path):
    for library in tops(path) & set(VENDORS):
        assert str(path.relative_to(ROOT)) == VENDORS[library], f"{library} belongs to {VENDORS[library]}"


def modules() -> dict[str, Path]:
    """Every module of both packages, by its dotted name."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}
    return {name: path for path, name in names.items()}


def arrows() -> dict[str, set[str]]:
    """Module → the modules that it imports: at its top, inside functions, and for annotations alone."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
                # `from package import module` reaches the module; a package's own names are reached by anything else.
                found[name] |= inner
                if len(inner) < len(node.names) and node.module in known:
                    found[name].add(node.module)
    return found


def test_every_room_has_its_place():
    inside = {path.relative_to(ROOT / "exporter").parts[0].removesuffix(".py") for path in ROOT.glob("exporter/**/*.py")}
    assert inside - {"__init__"} == set(ORDER)


def test_imports_run_one_way_through_the_rooms():
    def place(module: str) -> int:
        return ORDER.index(module.split(".")[1]) if module.startswith("exporter.") else -1

    upward = [(here, there) for here, others in arrows().items() for there in others if place(there) > place(here)]
    assert not upward


def test_no_file_imports_itself_in_a_circle():
    graph, order = {name: set(others) - {name} for name, others in arrows().items()}, []
    while free := [name for name, others in graph.items() if not others]:
        order += free
        graph = {name: others - set(free) for name, others in graph.items() if name not in free}
    assert not graph


#: Folders that have rooms, but for the run time's, whose rooms are its plugins.
FOLDERS = sorted({path.parent.parent for path in SOURCES if "exporter" in path.parent.parent.parts})


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_rooms_of_a_folder_import_each_other_in_no_circle(folder):
    """Rooms, and the files beside them, as one each."""
    above = ".".join(folder.relative_to(ROOT).parts) + "."
    graph: dict[str, set[str]] = {}
    for name, others in arrows().items():
        if name.startswith(above):
            room = name.removeprefix(above).partition(".")[0]
            reached = {other.removeprefix(above).partition(".")[0] for other in others if other.startswith(above)}
            graph.setdefault(room, set()).update(reached - {room})
    while free := [room for room, others in graph.items() if not others & graph.keys()]:
        graph = {room: others for room, others in graph.items() if room not in free}
    assert not graph


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_what_a_folder_keeps_to_itself_is_imported_nowhere_else(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                folder, _, last = name.rpartition(".")
                hidden = last.startswith("_") and not last.startswith("__") and name in modules()
                assert not hidden or path.parent == ROOT / folder.replace(".", "/"), f"{name} is {folder}'s own"


def test_a_class_name_has_one_meaning():
    named: dict[str, list[str]] = {}
    for name, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                named.setdefault(node.name, []).append(name)
    assert not {each: places for each, places in named.items() if len(places) > 1}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_siblings_never_import_each_other(kind):
    package = plugins.KINDS[kind]
    for path in (ROOT / package.replace(".", "/")).glob("*.py"):
        siblings = {f"{package}.{name}" for name in plugins.names(kind)}
        assert not imports(path) & siblings, f"{path.name} imports a sibling"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in plugins.KINDS for name in plugins.names(kind)])
def test_a_plugin_has_one_public_name_and_a_test_file(kind, name):
    path = ROOT / plugins.KINDS[kind].replace(".", "/") / f"{name}.py"
    public = [
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    assert [len(names) for names in public] == [1], f"{path} must state __all__ with one name"
    tested = {test.stem for test in ROOT.glob("tests/**/test_*.py")}
    assert f"test_{name}" in tested, f"no test_{name}.py"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem != "__init__"], ids=str)
def test_a_module_has_a_test_file_of_its_name(path):
    """Without its underscores, wherever it stands below tests/."""
    tested = {test.stem for test in ROOT.glob("tests/**/test_*.py")}
    assert f"test_{path.stem.strip('_')}" in tested, f"no test_{path.stem.strip('_')}.py"


@pytest.mark.parametrize("path", ALL, ids=str)
def test_no_file_is_over_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_types_are_checked_everywhere_and_exceptions_say_why():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    assert settings["include"] == ["engines", "exporter", "tools"]
    assert (settings["typeCheckingMode"], settings["strict"]) == ("standard", ["engines"])
    for path in [*SOURCES, *ROOT.glob("tools/**/*.py")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"#\s*pyright:", line):
                assert re.search(r"# pyright: ignore\[\w+(, \w+)*\] - \S", line), f"{path}:{number}: ignore[rule] - reason"


def test_the_run_time_imports_quickly():
    """CPU time of the quickest of several fresh processes: what a busy machine adds is not the run time's."""
    code = """
import time
times = [time.process_time()]
import numpy, PIL.Image, tokenizers, pydantic
class First(pydantic.BaseModel, defer_build=True):
    number: int
times.append(time.process_time())
import engines.pipeline
times.append(time.process_time())
print(times[2] - times[0], times[2] - times[1])
"""
    # Installed, it is compiled; the first process does that here. OpenBLAS has threads that spin while they wait, on other
    # processors, as long again as numpy's import takes.
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled["OPENBLAS_NUM_THREADS"] = "1"
    whole, own = [], []
    while len(whole) < 10 and (min(whole, default=1) > IMPORT_SECONDS or min(own) > OWN_SECONDS):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=compiled, capture_output=True, text=True, check=True)
        for taken, seconds in zip((whole, own), done.stdout.split(), strict=True):
            taken.append(float(seconds))
    assert (min(whole) <= IMPORT_SECONDS, min(own) <= OWN_SECONDS) == (True, True), f"{min(whole)} s, {min(own)} s of its own"


def test_the_run_time_imports_nothing_that_opening_a_bundle_can_do_without():
    """Each of these took longer than any module of its own: what asks for installed packages, and for near misses of a word."""
    code = """
import sys
import numpy, PIL.Image, tokenizers, pydantic
before = {*sys.modules}
import engines.pipeline
print(*{"importlib.metadata", "email", "socket", "difflib", "asyncio", "subprocess"} & {*sys.modules} - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_assert_at_a_user_and_no_swallowed_error(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno}: assert"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or getattr(node.type, "id", "") in {"Exception", "BaseException"}
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert raises or not broad, f"{path.name}:{node.lineno}: a broad except that carries on"


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    probe = f"{code}\nimport sys; print(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_engines_loads_neither_torch_nor_a_vendor_library():
    loaded = loaded_by("import engines, engines.pipeline, engines.bundle, engines.plugins")
    assert not loaded & (COMPILE_ONLY | set(VENDORS))


def test_no_source_names_this_workplace():
    for path in [*ALL, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.yaml")]:
        text = path.read_text()
        for word in ("/wo" + "rk/", "../sha" + "red", "farm" + "-bench"):
            assert word not in text, f"{path} names {word}"


def test_nothing_else_lies_at_the_top():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout, so nobody knows which files belong to it")
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name.partition("/")[0] for name in kept} == TOP
