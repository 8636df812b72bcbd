"""Tasks in processes of their own: what they return, raise, and that one that dies is begun again."""

import os
import signal
import sys
import threading

import pytest

from engines.errors import DivergenceError, MissingDependency, RecipeError
from exporter import machine
from exporter.cluster.resources import Resources
from exporter.cluster.runner import RETRIES, NoSuchMachine, WorkerDied
from exporter.sweep import nursery
from exporter.sweep.local_runner import LocalRunner


def process(*_):
    return os.getpid()


def fail(error):
    raise error


def die_until(folder, times):
    """Be killed so often, and then say so."""
    tries = len(list(folder.iterdir()))
    if tries < times:
        (folder / str(tries)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


def environment(name):
    return os.environ.get(name)


def loaded_and_threads():
    return {
        name for name in ("torch", "onnxruntime", "exporter.sweep.measure_point") if name in sys.modules
    }, threading.active_count()


@pytest.fixture(scope="module", params=["copies", "server"] if sys.platform == "linux" else ["server"])
def runner(request):
    """Of processes forked from a copy of this one, and from a server, as where this one has threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nursery, "possible", lambda: request.param == "copies")
        with LocalRunner() as found:
            assert bool(found._nursery) is (request.param == "copies")
            yield found


def test_builds_share_a_process_and_a_measurement_has_its_own(runner):
    shared = {runner.run(process).result() for _ in range(2)}
    alone = {runner.run(process, alone=True).result() for _ in range(2)}
    assert (len(shared), len(alone)) == (1, 2)
    assert not (shared | {os.getpid()}) & alone


def test_a_process_has_the_environment_of_the_sweep(runner, monkeypatch):
    for word in ("one", "other"):
        monkeypatch.setenv("T2IEXPORT_TEST", word)
        assert runner.run(environment, "T2IEXPORT_TEST", alone=True).result() == word
    monkeypatch.delenv("T2IEXPORT_TEST")
    assert runner.run(environment, "T2IEXPORT_TEST", alone=True).result() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process imports for itself")
def test_a_process_begins_with_the_tasks_imported_and_no_library_that_computes(runner):
    loaded, threads = runner.run(loaded_and_threads, alone=True).result()
    heavy = {"torch", "onnxruntime"} & set(sys.modules) if runner._nursery else set()  # as a test before may have made this one
    assert (loaded - heavy, threads) == ({"exporter.sweep.measure_point"}, 1)


@pytest.mark.parametrize(
    "error", [RecipeError(["a: b", "c: d"]), MissingDependency("openvino", "openvino"), DivergenceError("x"), KeyError("y")]
)
def test_what_a_task_raises_arrives_as_it_was(runner, error):
    found = runner.run(fail, error).exception()
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found).get("problems") == vars(error).get("problems")


@pytest.mark.parametrize("alone", [False, True])
def test_a_task_whose_process_is_killed_is_begun_again(runner, tmp_path, alone):
    assert runner.run(die_until, tmp_path, RETRIES, alone=alone).result() == RETRIES
    assert runner.run(process, alone=alone).result()


def test_one_that_dies_each_time_is_given_up(runner, tmp_path):
    found = runner.run(die_until, tmp_path, 99).exception()
    assert isinstance(found, WorkerDied)
    assert "memory ran out" in str(found)
    assert len(list(tmp_path.iterdir())) == RETRIES + 1
    assert runner.run(process).result()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Resources(cpus=4096), "4096 CPUs is asked for, and this machine has "),
        (Resources(memory="4000000 GB"), "4000000 GB of memory is asked for, and this machine has "),
        (
            Resources(gpu="9.9"),
            r"compute capability 9\.9 is asked for, and this machine has 8\.6 and 8\.9\. Leave it",
        ),
    ],
)
def test_what_this_machine_lacks_is_told_and_nothing_is_begun(runner, monkeypatch, asked, told):
    monkeypatch.setattr(machine, "compute_capabilities", lambda: ["8.6", "8.9"])
    with pytest.raises(NoSuchMachine, match=told):
        runner.run(process, asked=asked).result()


def test_what_this_machine_has_runs(runner, monkeypatch):
    monkeypatch.setattr(machine, "compute_capabilities", lambda: ["8.9"])
    assert runner.run(process, asked=Resources(cpus=1, memory="1 MB", gpu="8.9")).result()
