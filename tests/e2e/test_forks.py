"""A bundle ends where it ended when it was recorded; with noise on its denoiser it does not."""

from exporter.parity.metrics import psnr
from exporter.reference.recording import load_run
from tools.measure.forks import play, settings


def test_the_recorded_runs_are_those_of_seed_zero(built):
    runs = settings(built.path)
    recorded = [load_run(file) for file in sorted((built.path / "recordings").glob("run_*.npz"))][: len(runs)]
    assert [run.setting for run in recorded] == runs
    finals = play(built.path, runs, 1)
    assert all(psnr(mine[0], run.latent) > 60 for mine, run in zip(finals, recorded, strict=True))
    disturbed = play(built.path, runs[:1], 1, noise=30)
    assert psnr(disturbed[0][0], recorded[0].latent) < 50
