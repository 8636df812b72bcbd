"""One bundle: what it refuses before anything runs, how it batches, and that a seed is the same picture in any company."""

import contextlib
import threading
import time

import numpy as np
import pytest
from PIL import Image

from engines.errors import BundleError, UnsupportedError
from engines.serve.jobs import ImageRequest, Job
from engines.serve.options import ServeOptions
from tests.engines import small
from tests.engines.serve.live import opened_bytes


def wish(seeds=(1,), **arguments):
    return ImageRequest("small", {"prompts": "a red square", "steps": 2, **arguments}, seeds)


def drawn(served, requests):
    """Draw each request's first picture in a thread of its own, all at once; the files by request."""
    jobs = [Job(request) for request in requests]
    barrier = threading.Barrier(len(jobs))

    def run(job):
        barrier.wait()
        served.draw([job])

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [job.data for job in jobs]


def test_a_seed_is_the_same_picture_alone_and_in_any_batch(serve):
    """Bit by bit where the network answers the same, as here; a library's kernels may differ in the last bits by batch."""
    seen = []
    served = serve(options=ServeOptions(wait_ms=500), observed=lambda *told: seen.append(told), slow=lambda _: time.sleep(0.01))
    served.open()
    wishes = [
        wish((3,)),
        wish((3,), steps=4, height=64, width=32),  # other steps and another size
        wish((4,), guidance_scale=7.0),
        wish((5,), prompts="the sea", negative_prompt="blue"),
        wish((6,), sampler="ode:relative=0.1,absolute=0.1", steps=None),
    ]
    wishes = [ImageRequest(each.model, {k: v for k, v in each.arguments.items() if v is not None}, each.seeds) for each in wishes]
    alone = [drawn(served, [each])[0] for each in wishes]
    assert all(items == 1 for _, items, _ in seen)
    for order in ([0, 2, 3, 4], [4, 3, 0, 2], [0, 1, 2, 3, 4], [0, 0, 0]):
        seen.clear()
        together = drawn(served, [wishes[index] for index in order])
        assert together == [alone[index] for index in order]
        assert any(items == 2 for name, items, _ in seen if name == "unet")  # the bundle takes two at once


def test_pictures_at_different_steps_share_a_call(serve):
    """One that comes later joins the other's calls of the denoiser, each at its own time."""
    times, started = [], threading.Event()

    @contextlib.contextmanager
    def opener(path, wrap):
        from engines.bundle import Bundle
        from engines.pipeline import Pipeline

        bundle = Bundle.open(path)
        plain = small.networks(bundle)

        def denoise(inputs):
            times.append(tuple(inputs["timestep"]))
            started.set()
            time.sleep(0.05)
            return plain["unet"](inputs)

        yield Pipeline(bundle, {name: wrap(name, "", denoise if name == "unet" else plain[name]) for name in plain})

    served = serve(options=ServeOptions(wait_ms=300), opener=opener)
    served.open()
    first, second = Job(wish((1,), steps=4, height=64, width=32)), Job(wish((2,), height=64, width=32))
    second_thread = threading.Thread(target=lambda: (started.wait(5), served.draw([second])))
    second_thread.start()
    served.draw([first])
    second_thread.join(10)
    assert [each for each in times if len(set(each)) > 1], times


def test_fixed_batches_are_one_call_of_the_pipeline_and_the_same_pictures(serve):
    calls = []
    fixed = serve(calls=calls, options=ServeOptions(batching="fixed"))
    fixed.open()
    jobs = [Job(wish((seed,), guidance_scale=float(seed))) for seed in (3, 9)]
    fixed.draw(jobs)
    assert [each for each in calls if each[0] == "unet"] == [("unet", 2)] * 2
    fixed.close()
    continuous = serve()
    continuous.open()
    assert [drawn(continuous, [job.request])[0] for job in jobs] != [b"", b""]
    for job in jobs:
        (alone,) = drawn(continuous, [job.request])
        np.testing.assert_array_equal(np.asarray(opened_bytes(alone)), np.asarray(opened_bytes(job.data)))


def test_images_and_masks_of_a_fixed_batch_are_each_its_own(serve):
    served = serve("editor", encoder=True, options=ServeOptions(batching="fixed"))
    served.open()
    images = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)) for seed in (1, 2)]
    requests = [ImageRequest("editor", {"prompts": "sea", "steps": 2, "image": image, "strength": 0.5}, (7,)) for image in images]
    assert requests[0].company == requests[1].company
    together = [Job(request) for request in requests]
    served.draw(together)
    for job in together:
        again = Job(job.request)
        served.draw([again])
        np.testing.assert_array_equal(np.asarray(opened_bytes(again.data)), np.asarray(opened_bytes(job.data)))


def test_only_what_fits_is_drawn_together():
    image = Image.new("RGB", (32, 32))
    different = [
        wish(),
        wish(height=64),
        wish(steps=4),
        wish(image=image),
        wish(image=image, mask=image),
        wish(image=image, strength=0.5),
        wish(sampler="ode"),
        wish(generator="torch-cpu"),
        wish(prompt_2="x"),
        wish(inputs={"depth": 1}),
        wish(guidance_scale=2.0),
    ]
    assert len({each.company for each in different}) == len(different)
    assert wish().company == wish((5,), prompts="another", negative_prompt="b").company


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"steps": 3}, "no sampler of 3 steps"),
        ({"height": 640}, "height 640"),
        ({"guidance_scale": float("nan")}, "not a number to multiply by"),
        ({"inputs": {"depth": 1}}, "no input 'depth'"),
        ({"image": Image.new("RGB", (32, 32))}, "no VAE encoder"),
    ],
)
def test_what_a_bundle_cannot_do_is_refused_before_a_network_runs(serve, arguments, text):
    served = serve()
    with pytest.raises(UnsupportedError, match=text):
        served.check(wish(**arguments))
    served.check(wish())
    assert served.state == "closed"


def test_batching_is_what_the_bundle_can_do(serve):
    frugal = serve("frugal", low_memory=True)
    assert (frugal.continuous, frugal.slots, frugal.batch) == (False, 1, 2)
    assert serve().continuous
    assert not serve(options=ServeOptions(batching="fixed")).continuous
    assert serve(options=ServeOptions(batch=1)).slots == 1
    with pytest.raises(UnsupportedError, match="low_memory opens one network at a time"):
        serve("frugal", options=ServeOptions(batching="continuous"))


def test_a_bundle_of_low_memory_costs_its_largest_part(serve):
    whole, frugal = serve(), serve("frugal", low_memory=True)
    sizes = [whole.bundle.manifest.files[f"onnx/20/{part}.onnx"].size for part in ("text_encoder", "unet", "vae_decoder")]
    assert (whole.cost, frugal.cost) == (sum(sizes), max(sizes))


def test_a_damaged_bundle_is_refused_at_start(serve, tmp_path):
    serve()
    (tmp_path / "small/onnx/20/unet.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="is damaged"):
        serve()


def test_a_fused_bundle_is_served(serve):
    served = serve("fused", **small.fused())
    assert served.bundle.manifest.with_role("pipeline")
    served.check(wish())
