import pytest

from engines.samplers import Cancelled
from engines.serve.jobs import ImageRequest, Job


def wish(**changes):
    return ImageRequest("m", {"prompts": "sea", "steps": 10}, (5, 6), **changes)


def test_a_job_ends_once_and_tells():
    told = []
    job = Job(wish(), 1, tell=told.append)
    assert (job.seed, job.state) == (6, "waiting")
    job.start()
    job.data = b"file"
    job.end()
    job.end(Cancelled())
    assert (job.state, [event.kind for event in told]) == ("done", ["done"])
    assert job.times["created"] <= job.times["started"] <= job.times["ended"]


@pytest.mark.parametrize(("error", "state"), [(None, "done"), (ValueError(), "failed"), (Cancelled(), "cancelled")])
def test_how_it_ended_is_its_state(error, state):
    job = Job(wish())
    job.end(error)
    assert (job.state, job.error) == (state, error)


def test_who_is_cancelled_is_stopped_at_the_next_look():
    job, heard = Job(wish()), []
    job.on_cancel = lambda: heard.append(1)
    job.check()
    job.cancel()
    assert heard == [1]
    with pytest.raises(Cancelled):
        job.check()


@pytest.mark.parametrize(
    ("previews", "steps", "expected"), [(0, 10, set()), (1, 10, {5}), (3, 10, {2, 5, 8}), (50, 4, {1, 2, 3}), (2, None, {1, 2})]
)
def test_previews_are_spread_over_the_steps_and_leave_out_the_last(previews, steps, expected):
    request = ImageRequest("m", {"prompts": "sea", "steps": steps}, (5,), previews=previews)
    assert request.preview_steps == expected
