"""A replica by itself, and two of a local Ray of which one is killed under load."""

import asyncio
import io
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from engines.ray_serve import Replica, drawn
from tests.engines import small
from tests.engines.test_real_engines import graphs


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "bundle", graphs=graphs())


def run(coroutine):
    """In a thread: another test's browser may have left a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def pixels(pictures):
    return np.stack([np.asarray(one) for one in pictures])


def sent(content):
    async def body():
        return json.dumps(content).encode()

    return SimpleNamespace(body=body)


def test_a_replica_draws_what_the_bundle_draws(bundle):
    made = run(Replica(str(bundle.folder)).draw("a red square", seed=7, steps=2))
    with Pipeline.open(bundle.folder) as pipeline:
        wanted = pipeline.generate("a red square", seed=7, steps=2)
    np.testing.assert_array_equal(pixels(made), pixels(wanted))
    assert made[0].info == wanted[0].info


def test_it_answers_http_with_a_picture_or_with_what_is_wrong(bundle):
    pytest.importorskip("starlette")
    replica = Replica(str(bundle.folder))
    answer = run(replica(sent({"prompt": "a", "seed": 7})))
    assert (answer.status_code, answer.media_type) == (200, "image/png")
    picture = Image.open(io.BytesIO(answer.body))
    np.testing.assert_array_equal(pixels([picture]), pixels(run(replica.draw("a", seed=7))))
    for wrong, told in (
        ([], "no request for a picture"),
        ({"prompt": "a", "steps": 3}, "no sampler of 3"),
        ({"prompt": "a", "step": 3}, "step: Extra inputs"),
        ({"prompt": "a", "steps": "3"}, "steps: Input should be a valid integer"),
    ):
        answer = run(replica(sent(wrong)))
        assert answer.status_code == 400
        assert told in answer.body.decode()


def test_whoever_asks_asks_again_with_the_same_seed_when_a_replica_dies(monkeypatch):
    class DiedError(Exception):
        pass

    ray = ModuleType("ray.exceptions")
    ray.RayActorError = DiedError
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray)
    seen = []

    async def remote(prompt, **wishes):
        seen.append((prompt, wishes))
        if len(seen) < 3:
            raise DiedError
        return ["picture"]

    handle = SimpleNamespace(draw=SimpleNamespace(remote=remote))
    assert run(drawn(handle, "a", steps=2)) == ["picture"]
    assert seen[0] == seen[1] == seen[2]
    assert set(seen[0][1]) == {"seed", "steps"}
    seen.clear()
    with pytest.raises(DiedError):
        run(drawn(handle, "a", tries=2))

    async def refused(*_, **__):
        raise UnsupportedError("no")

    with pytest.raises(UnsupportedError):
        run(drawn(SimpleNamespace(draw=SimpleNamespace(remote=refused)), "a"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_replicas_of_which_one_is_killed_under_load_lose_no_request(bundle):
    ray = pytest.importorskip("ray")
    from ray import serve
    from ray.util.state import list_actors

    requests = 100
    with Pipeline.open(bundle.folder) as pipeline:
        wanted = pixels(pipeline.generate(["a red square"] * requests, seed=0))
    ray.init(num_cpus=4, include_dashboard=True, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}})
    try:
        deployment = serve.deployment(Replica, num_replicas=2, max_ongoing_requests=4, ray_actor_options={"num_cpus": 1})
        handle = serve.run(deployment.bind(str(bundle.folder)))
        alive = [one for one in list_actors(filters=[("state", "=", "ALIVE")]) if "Replica" in one.class_name]
        assert len(alive) == 2

        async def load():
            asked = [asyncio.ensure_future(drawn(handle, "a red square", seed=seed)) for seed in range(requests)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            os.kill(alive[0].pid, signal.SIGKILL)
            killed = sum(not one.done() for one in asked)
            return killed, [await one for one in asked]

        waiting, made = run(load())
        assert waiting > requests / 4, "it was killed when nearly all was done"
        np.testing.assert_array_equal(np.stack([np.asarray(one) for (one,) in made]), wanted)
    finally:
        serve.shutdown()
        ray.shutdown()
