"""Exit statuses, as a shell sees them."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

from engines.errors import T2IError

#: The published table; README has it in words.
STATUSES = {
    "RecipeError": 2,
    "UnsupportedError": 3,
    "MissingDependency": 4,
    "ParityError": 5,
    "SpeedError": 5,
    "DivergenceError": 5,
    "BundleError": 6,
    "MachineError": 7,
    "DiskFull": 7,
}
PROGRAM = """
import sys, click
from engines.exits import run

@click.command()
@click.argument("what")
def command(what):
    if what == "talk":
        for line in range(100_000):
            click.echo(line)
    elif what == "rich":
        from rich.console import Console
        for line in range(100_000):
            Console().print(line)
    else:
        raise {"interrupt": KeyboardInterrupt, "memory": MemoryError, "bug": KeyError}[what]

run(command, "program")
"""


def subclasses(kind):
    return {each for child in kind.__subclasses__() for each in (child, *subclasses(child))}


def test_every_error_has_its_status_and_none_is_a_bugs():
    for package in ("engines", "exporter") if importlib.util.find_spec("torch") else ("engines",):
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if module.name.rpartition(".")[2] != "__main__":
                importlib.import_module(module.name)
    every = {kind for kind in subclasses(T2IError) if kind.__module__.partition(".")[0] in {"engines", "exporter"}}
    own = {kind for kind in every if kind.__module__.startswith("engines.")}
    assert all(kind.exit_code in STATUSES.values() and "exit_code" not in vars(kind) for kind in every - own)
    assert {kind.__name__: kind.exit_code for kind in own} == STATUSES
    assert not hasattr(T2IError, "exit_code")
    told = importlib.import_module("engines.errors").__doc__
    for kind in own:
        assert f"{kind.__name__} " in told
        assert kind.__name__ == "DiskFull" or f"exit {kind.exit_code}" in next(
            line for line in told.splitlines() if f"{kind.__name__} " in line
        )


def run(what, **options):
    return subprocess.run([sys.executable, "-c", PROGRAM, what], text=True, check=False, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize(
    ("what", "status", "told"),
    [("interrupt", 130, "interrupted"), ("memory", 7, "error: memory ran out"), ("bug", 1, "Traceback")],
)
def test_how_a_command_ends(what, status, told):
    done = run(what, stdout=subprocess.DEVNULL)
    assert done.returncode == status
    assert told in done.stderr


@pytest.mark.parametrize("what", ["talk", "rich"])
def test_nobody_reads(what):
    with subprocess.Popen([sys.executable, "-c", PROGRAM, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (141, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="a device of Linux")
def test_what_is_printed_has_no_room():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = run("talk", stdout=full)
    assert done.returncode == 7
    assert done.stderr.startswith("error: No space left on device")
    assert "Traceback" not in done.stderr
