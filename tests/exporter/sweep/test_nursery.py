"""Processes forked from a copy of this one: what they give, raise, die of, and that none is left."""

import contextlib
import os
import signal
import sys
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest

from exporter.sweep import nursery
from exporter.sweep.nursery import Nursery

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is copied")


def process(*_):
    return os.getpid()


def parent():
    return os.getppid()


def raised(kind):
    raise kind("told")


def unsendable():
    return lambda: 0


def end(number):
    os.kill(os.getpid(), number)


def environment(name):
    return os.environ.get(name)


def interruptible():
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def is_there(number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, 0)
        return True
    return False


@pytest.fixture(scope="module")
def root():
    made = Nursery()
    yield made
    made.close()
    assert not is_there(made._pid)


def test_a_process_does_one_task_after_the_other_and_ends(root):
    with root.process() as own, root.process() as other:
        numbers = [each.submit(process).result() for each in (own, other, own)]
        assert numbers[0] == numbers[2] != numbers[1]
        assert {own.submit(parent).result(), other.submit(parent).result()} == {root._pid}
        assert root._pid not in {os.getpid(), *numbers}
    for _ in range(100):  # whenever it is asked, the nursery looks who has ended
        with root.process() as third:
            third.submit(process).result()
        if not any(map(is_there, numbers[:2])):
            return
    pytest.fail("processes that ended are still there")


def test_what_this_process_has_changed_since_is_the_environment_alone(root, monkeypatch):
    monkeypatch.setenv("T2IEXPORT_TEST", "new")
    monkeypatch.setattr(nursery, "_ASK", b"-")
    with root.process() as own:
        assert own.submit(environment, "T2IEXPORT_TEST").result() == "new"
        assert own.submit(asked_by).result() == b"+"


def asked_by():
    return nursery._ASK


def test_what_a_task_raises_arrives_with_where_it_was(root):
    with root.process() as own:
        for kind in (KeyError, SystemExit):
            error = own.submit(raised, kind).exception()
            assert type(error) is kind
            assert error.args == ("told",)
            assert "in raised" in str(error.__cause__)
        assert own.submit(process).result()


def test_a_result_that_cannot_be_sent_is_told(root):
    with root.process() as own:
        assert "pickle" in str(own.submit(unsendable).exception())
        assert own.submit(process).result()
        with pytest.raises(Exception, match="pickle"):
            own.submit(lambda: 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_is_killed_is_told(root, number):
    with root.process() as own:
        assert isinstance(own.submit(end, number).exception(), BrokenProcessPool)
        assert isinstance(own.submit(process).exception(), BrokenProcessPool)
        own.shutdown()
        own.shutdown()


def test_a_terminals_interrupt_reaches_the_task_and_not_the_nursery(root):
    os.kill(root._pid, signal.SIGINT)
    with root.process() as own:
        assert own.submit(interruptible).result()
        assert isinstance(own.submit(end, signal.SIGINT).exception(), KeyboardInterrupt)
        assert own.submit(process).result()


def test_what_is_not_written_yet_is_written_once(capfd):
    sys.stdout.write("half a line")
    made = Nursery()
    with made.process() as own:
        own.submit(print, "whole").result()
    made.close()
    sys.stdout.flush()
    assert sorted(capfd.readouterr().out.replace("whole\n", "").split()) == ["a", "half", "line"]


def test_a_process_with_threads_or_a_library_that_has_some_is_not_copied(monkeypatch):
    for name in nursery._THREADED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert nursery.possible() is (threading.active_count() == 1)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert nursery.possible()
    for name in nursery._THREADED:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, os)
            assert not nursery.possible()
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert not nursery.possible()
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not nursery.possible()
