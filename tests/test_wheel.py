"""What is installed: the wheel's files, and the commands in an empty folder where there is no checkout."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from exporter.recipe.shipped import recipes

pytest.importorskip("setuptools", minversion="77", reason="it builds the wheel")

ROOT = Path(__file__).parent.parent
CODE = ("engines", "exporter")
#: What a fresh clone holds and a wheel needs.
NEEDED = ("engines", "exporter", "recipes", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys\nfrom setuptools import build_meta\nprint(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def files(folder):
    """Every file below a folder that is no bytecode, relative to it."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def digests(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files(folder)}


def build(what, source, output):
    """Have setuptools build a wheel or a source distribution, as pip would, and return the file."""
    output.mkdir()
    command = [sys.executable, "-c", BUILD, f"build_{what}", str(output)]
    subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    (built,) = output.iterdir()
    return built


def packed(folder, *, weights):
    """Source distribution → wheel, from a copy of what they need, so that nothing is written into the checkout."""
    source = folder / "source"
    source.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    for path in source.glob("recipes/**/*.safetensors") if not weights else ():
        path.write_bytes(b"")  # most of the time goes into packing them
    shutil.unpack_archive(build("sdist", source, folder / "sdist"), folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder / "wheel")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The wheel, unpacked; its weights are empty files."""
    folder = tmp_path_factory.mktemp("quick")
    shutil.unpack_archive(packed(folder, weights=False), folder / "site", "zip")
    return folder / "site"


def test_the_wheel_holds_the_code_and_its_data_and_nothing_else(site):
    expected = {f"{name}/{file}" for name in CODE for file in files(ROOT / name)}
    expected |= {f"recipes/{file}" for file in files(ROOT / "recipes") if not file.endswith(".csv")}
    assert {name for name in files(site) if ".dist-info/" not in name} == expected
    assert {"engines/py.typed", "exporter/py.typed", "recipes/demo.yaml", "exporter/models/pairings.json"} <= expected


def test_an_unpacked_wheel_finds_its_recipes_with_the_run_time_alone(site, tmp_path):
    heavy = ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "scipy", "safetensors")
    absent = f"import sys\nsys.modules.update(dict.fromkeys({heavy}))\nfrom exporter.cli import main\nmain(['list', 'recipes'])"
    settings = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", absent], cwd=tmp_path, env=settings, capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed[1:] == list(recipes())


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`t2iexport`, installed from its wheel in an environment of its own that sees this one's libraries and no checkout."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = packed(folder, weights=True)
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], capture_output=True, text=True, check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # A path in a .pth file is put at the end, and .pth files there, such as an editable install's, are not read.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return python.with_name("t2iexport")


@pytest.fixture
def run(program, tmp_path, monkeypatch):
    """Call the installed program in an empty folder."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = tmp_path / "empty"
    here.mkdir()

    def call(*arguments):
        return subprocess.run([program, *arguments], cwd=here, capture_output=True, text=True, check=False)

    return call


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_installed_program_builds_the_demo_by_name_in_an_empty_folder(run, program, tmp_path):
    assert run("--help").stdout.startswith("Usage: t2iexport")
    assert "\n  demo " in run("list", "recipes").stdout
    probe = [program.with_name("python"), "-c", "import exporter; print(exporter.__file__)"]
    where = subprocess.run(probe, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    package = Path(where.strip()).parent
    assert package.is_relative_to(program.parents[1])
    before = digests(package)
    typo = run("build", "demmo", "--dry-run")
    assert (typo.returncode, "did you mean 'demo'?" in typo.stderr) == (2, True), typo.stderr
    for arguments in (
        ("build", "demo", "--dry-run"),
        ("inspect", "demo"),
        ("build", "demo", "--set", "targets=[onnxruntime]"),
        ("build", "demo-turbo", "--dry-run"),  # its UNet lies beside the recipe
        ("generate", "bundles/demo", "a green star on a white background", "-o", "star.png"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "empty" / "star.png").stat().st_size > 500
    assert digests(package) == before, "a command wrote into the installed package"
