"""Tasks in processes of their own: what they return, raise, and that one that dies is begun again."""

import os
import signal

import pytest

from engines.errors import DivergenceError, MissingDependency, RecipeError
from exporter.sweep.runner import RETRIES, LocalRunner, WorkerDied


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


@pytest.fixture(scope="module")
def runner():
    with LocalRunner() as found:
        yield found


def test_builds_share_a_process_and_a_measurement_has_its_own(runner):
    shared = {runner.run(process).result() for _ in range(2)}
    alone = {runner.run(process, alone=True).result() for _ in range(2)}
    assert (len(shared), len(alone)) == (1, 2)
    assert not (shared | {os.getpid()}) & alone


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
