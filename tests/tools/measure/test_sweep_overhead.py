"""Tasks are timed where they run, and answer as they do without."""

import time

from exporter.cluster.resources import ANYTHING
from exporter.cluster.runner import died
from tools.measure.sweep_overhead import Clocked, timed


class Here:
    """Runs tasks in this process; the second dies."""

    width = 3

    def __init__(self):
        self.asked = []

    def run(self, function, *arguments, alone=False, asked=ANYTHING):
        from concurrent.futures import Future

        self.asked.append((alone, asked))
        future = Future()
        future.set_result(function(*arguments))
        return died() if len(self.asked) == 2 else future


def slow(seconds, answer):
    time.sleep(seconds)
    return answer


def test_a_tasks_own_time_is_its_functions():
    clocked = Clocked(Here())
    assert clocked.width == 3
    assert clocked.run(slow, 0.05, "done", alone=True).result() == "done"
    assert clocked.seconds[0] >= 0.05
    assert "died" in str(clocked.run(slow, 0, "").exception())
    assert len(clocked.seconds) == 1
    assert clocked._runner.asked == [(True, ANYTHING), (False, ANYTHING)]
    assert timed(slow, 0, 7)[2] == 7


def test_of_a_cpu_only_work_counts():
    seconds, cpu, _ = timed(slow, 0.3, "")
    assert seconds >= 0.3
    assert cpu < 0.25
    assert timed(sum, range(3_000_000))[1] > 0
