import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the extra [serve] is not installed")

from engines.serve.jobs import ImageRequest, Job
from engines.serve.metrics import Metrics


def text(metrics):
    data, kind = metrics.text()
    assert kind.startswith("text/plain")
    return data.decode()


def test_a_job_is_counted_by_how_it_ended_and_by_stage():
    metrics = Metrics()
    for error in (None, ValueError()):
        job = Job(ImageRequest("demo", {}, (1,)))
        job.start()
        job.spend("unet", 0.2)
        job.end(error)
        metrics.ended(job)
    told = text(metrics)
    assert 't2iexport_pictures_total{model="demo",result="done"} 1.0' in told
    assert 't2iexport_pictures_total{model="demo",result="failed"} 1.0' in told
    assert 't2iexport_stage_seconds_bucket{le="0.25",model="demo",stage="unet"} 2.0' in told
    assert 't2iexport_stage_seconds_bucket{le="0.1",model="demo",stage="unet"} 0.0' in told
    assert 't2iexport_picture_seconds_count{model="demo"} 1.0' in told


def test_servers_in_one_process_do_not_share_figures():
    one, two = Metrics(), Metrics()
    one.observed("demo")("unet", 3, 0.1)
    assert 't2iexport_batch_items_sum{model="demo",part="unet"} 3.0' in text(one)
    assert "demo" not in text(two)


def test_what_was_refused_before_a_network_ran_is_no_failure():
    metrics, job = Metrics(), Job(ImageRequest("demo", {}, (1,)))
    job.start()
    job.end(ValueError())
    metrics.ended(job)
    told = text(metrics)
    assert 't2iexport_pictures_total{model="demo",result="refused"} 1.0' in told
    assert "failed" not in told
    assert 'stage="queue"' not in told


def test_what_another_bundle_is_to_end_is_no_picture_yet():
    metrics, job = Metrics(), Job(ImageRequest("base", {}, (1,)))
    job.left = np.zeros((4, 8, 8), np.float32)
    job.start()
    job.spend("unet", 0.2)
    job.end()
    metrics.ended(job)
    told = text(metrics)
    assert 't2iexport_stage_seconds_count{model="base",stage="unet"} 1.0' in told
    assert "t2iexport_pictures_total{" not in told
    assert "t2iexport_picture_seconds_count{" not in told
