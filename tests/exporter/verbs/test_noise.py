"""The verb says what was gained, and what the bundle's own picture is worth."""

from types import SimpleNamespace

import numpy as np
from click.testing import CliRunner

from exporter.noise import optimize as module
from exporter.verbs.noise import optimize_noise_command


def test_each_prompt_has_its_line(monkeypatch):
    asked = {}

    def optimize(*arguments, **wishes):
        asked.update(arguments=arguments[:5], wishes=wishes)
        rewards = np.array([[10.0, 20.0], [12.5, 19.0]])
        return SimpleNamespace(rewards=rewards, replayed=np.array([12.4, 20.0]), engine="onnxruntime 1")

    monkeypatch.setattr(module, "optimize", optimize)
    words = ["b", "a red circle", "sea", "--reward", "r", "-o", "n.npy", "--iterations", "1", "--seed", "4"]
    done = CliRunner().invoke(optimize_noise_command, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "a red circle: 10 → 12.5 after 1 gradients; the bundle's own picture, on onnxruntime 1: 12.4",
        "sea: 20 → 20 after 0 gradients; the bundle's own picture, on onnxruntime 1: 20",
        "n.npy",
    ]
    path, reward, prompts, options, out = asked["arguments"]
    assert (str(path), str(reward), prompts, str(out)) == ("b", "r", ("a red circle", "sea"), "n.npy")
    assert (options.iterations, options.rate, options.weight) == (1, 5.0, 0.01)
    assert asked["wishes"] == {"steps": None, "seed": 4, "guidance_scale": None}
