"""The teacher's trajectories are DDIM's under guidance, kept at their stops, and taken batch by batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from engines.errors import UnsupportedError
from exporter.training import teacher_rollouts
from exporter.training.batches import order
from exporter.training.options import Played
from exporter.training.teacher_rollouts import TeacherRollouts, play

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
STATES = np.array([[0.0], [1.0], [2.0], [3.0]], np.float16)  # the empty prompt's, and three captions'


class Teacher(torch.nn.Module):
    def forward(self, latent, timestep, states):
        return torch.tanh(latent + states.reshape(-1, 1, 1, 1) / 4) * (timestep.reshape(-1, 1, 1, 1) / 1000)


class Leaping(Played):
    @property
    def stops(self):
        return (2, 4)


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_rollouts, "device", lambda: torch.device("cpu"))
    np.save(tmp_path / "latents.npy", np.zeros((3, 4, 2, 2), np.float16))
    np.save(tmp_path / "states.npy", STATES)
    said = []
    teacher = SimpleNamespace(module=Teacher())
    return SimpleNamespace(
        schedule=CONFIG, encoded=tmp_path, ports=("states",), teacher=teacher, played=tmp_path, say=said.append
    )


OPTIONS = {"data": "d", "steps": 1, "teacher_steps": 4, "count": 5, "play_batch": 2, "guidance": 3.0, "batch": 2}


def test_a_path_is_ddim_s_under_guidance(lesson, tmp_path):
    play(Leaping(**OPTIONS), lesson, tmp_path)
    paths, rows = np.load(tmp_path / "paths.npy"), np.load(tmp_path / "rows.npy")
    assert (paths.shape, paths.dtype) == ((5, 3, 4, 2, 2), np.float32)
    np.testing.assert_array_equal(rows, [1, 2, 3, 1, 2])  # captions in turn, never the empty prompt
    scheduler = DDIMScheduler(**CONFIG, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(4)
    latent = torch.from_numpy(paths[:, 0])
    words = torch.from_numpy(STATES[rows].astype(np.float32))
    for number, time in enumerate(scheduler.timesteps, 1):
        negative, positive = (Teacher()(latent, time.expand(5).float(), each) for each in (torch.zeros(5, 1), words))
        latent = scheduler.step(negative + 3.0 * (positive - negative), time, latent).prev_sample
        if number in (2, 4):
            np.testing.assert_allclose(latent.numpy(), paths[:, number // 2], rtol=1e-3, atol=2e-3)
    level = float((1 - scheduler.alphas_cumprod[999]) ** 0.5)
    noise = paths[:, 0] / level
    assert abs(noise.mean()) < 0.4
    assert 0.7 < noise.std() < 1.3
    assert len(np.unique(noise)) == noise.size, "every batch draws its own"


def test_every_seed_plays_others(lesson, tmp_path):
    starts = []
    for seed in (0, 1, 0):
        play(Leaping(**OPTIONS, seed=seed), lesson, tmp_path)
        starts.append(np.load(tmp_path / "paths.npy")[:, 0])
    np.testing.assert_array_equal(starts[0], starts[2])
    assert (starts[0] != starts[1]).all()


def test_paths_are_taken_in_the_order_of_the_data(lesson, tmp_path):
    options = Leaping(**OPTIONS)
    play(options, lesson, tmp_path)
    paths, rows = np.load(tmp_path / "paths.npy"), np.load(tmp_path / "rows.npy")
    taken, rng, states = TeacherRollouts(options, lesson).take(3)
    picked = order(0, 3, 2, 5)
    np.testing.assert_array_equal(taken.numpy(), paths[picked])
    np.testing.assert_array_equal(states[0].numpy(), STATES[rows[picked]][:, None].astype(np.float32))
    again = TeacherRollouts(options, lesson).take(3)[1]
    assert rng.random() == again.random()


def test_without_trajectories_it_says_how_to_get_them(lesson):
    lesson.played = None
    with pytest.raises(UnsupportedError, match=r"leaping: no trajectories were played.\n  Build the recipe"):
        TeacherRollouts(Leaping(**OPTIONS), lesson)
