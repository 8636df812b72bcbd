"""What a step sees follows from its number alone, and every picture comes once per round."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from engines.errors import UnsupportedError
from exporter.training.batches import BatchSampler, Rows, order
from exporter.training.options import Options

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LATENTS = np.random.default_rng(0).standard_normal((5, 4, 2, 3)).astype(np.float16)
STATES = np.arange(6 * 2, dtype=np.float16).reshape(6, 2)  # the first is the empty prompt's


@pytest.fixture
def lesson(tmp_path):
    np.save(tmp_path / "latents.npy", LATENTS)
    np.save(tmp_path / "prompt_embeds.npy", STATES)
    return SimpleNamespace(schedule=CONFIG, encoded=tmp_path, ports=("prompt_embeds",))


def draws(lesson, prediction="epsilon", **options):
    lesson.schedule = {**CONFIG, "prediction_type": prediction}
    asked = {"data": "d", "steps": 1, "batch": 3, "empty": 0.0}
    return BatchSampler(Options(**asked | options), lesson, "latents.npy")


@pytest.mark.parametrize(("batch", "count"), [(3, 5), (5, 5), (4, 2), (1, 1)])
def test_every_item_comes_once_per_round(batch, count):
    picked = np.concatenate([order(7, share, batch, count) for share in range(2 * count + 2)])
    for start in range(0, len(picked) - count + 1, count):
        assert sorted(picked[start : start + count]) == list(range(count))
    np.testing.assert_array_equal(order(7, 3, batch, count), picked[3 * batch : 4 * batch])
    if count == 5:
        assert (order(8, 0, 5, 5) != order(7, 0, 5, 5)).any()


def test_rows_are_float32_copies(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "a.npy", array)
    rows = Rows(tmp_path / "a.npy")
    assert (len(rows), rows.size, rows.shape) == (4, 48, (4, 3))
    taken = rows.take(np.array([2, 0, 2]))
    np.testing.assert_array_equal(taken.numpy(), array[[2, 0, 2]])
    assert taken.dtype == torch.float32
    assert taken.data_ptr() % 64 == 0
    rows.settle(torch.device("cpu"), whole=True)
    np.testing.assert_array_equal(rows.take(np.array([3])).numpy(), array[[3]])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_batch_is_noisy_as_the_scheduler_says(lesson, prediction):
    found = draws(lesson, prediction)
    noisy, times, states, target = found.batch(4)
    clean, noise, _, _ = found.pictures(4)
    scheduler = DDPMScheduler.from_config({**CONFIG, "prediction_type": prediction})
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, times.long()))
    want = {"epsilon": noise, "sample": clean, "v_prediction": scheduler.get_velocity(clean, noise, times.long())}[prediction]
    torch.testing.assert_close(target, want)
    picked = order(0, 4, 3, 5)
    np.testing.assert_array_equal(clean.numpy(), LATENTS[picked].astype(np.float32))
    np.testing.assert_array_equal(states[0].numpy(), STATES[picked + 1][:, None].astype(np.float32))
    assert times.dtype == torch.float32
    assert ((times >= 0) & (times < 1000)).all()


def test_a_batch_follows_from_its_number_and_the_seed(lesson):
    def flat(found, share):
        noisy, times, states, target = found.batch(share)
        return torch.cat([each.flatten() for each in (noisy, times, *states, target)])

    assert torch.equal(flat(draws(lesson), 2), flat(draws(lesson), 2))
    assert not torch.equal(flat(draws(lesson), 2), flat(draws(lesson), 3))
    assert not torch.equal(flat(draws(lesson), 2), flat(draws(lesson, seed=1), 2))


def test_a_share_of_captions_is_left_empty(lesson):
    np.testing.assert_array_equal(draws(lesson).empty()[0].numpy(), STATES[:1][:, None].astype(np.float32))
    all_empty = draws(lesson, empty=1.0).pictures(0)[3][0]
    np.testing.assert_array_equal(all_empty.numpy(), np.repeat(STATES[:1][:, None], 3, 0).astype(np.float32))
    half = torch.cat([draws(lesson, empty=0.5, batch=100).pictures(share)[3][0][:, 0, 0] for share in range(10)])
    assert 0.4 < float((half == 0).float().mean()) < 0.6


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "options: FlowMatchEulerDiscreteScheduler is a flow"),
        ({"use_flow_sigmas": True}, "is a flow"),
        ({"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction' has no task loss"),
    ],
)
def test_what_has_no_task_loss(lesson, config, told):
    lesson.schedule = {**CONFIG, **config}
    with pytest.raises(UnsupportedError, match=told):
        BatchSampler(Options(data="d", steps=1), lesson, "latents.npy")
