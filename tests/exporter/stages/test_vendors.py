"""An exception of a library is the stage's sentence, and one of our code stays a bug."""

import errno

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from engines.errors import ParityError, UnsupportedError
from exporter import cli
from exporter.models.weights import skeleton
from exporter.schedulers.loop import InjectedNoise
from exporter.stages.vendors import raised_by, vendors


def told(function) -> str:
    with pytest.raises(UnsupportedError) as caught, vendors("export of unet"):
        function()
    return str(caught.value)


def test_a_librarys_words_are_told_with_stage_version_place_and_way_out():
    text = told(lambda: nn.Linear(2, 2)(torch.zeros(3)))
    first, words, *rest = text.splitlines()
    assert first.startswith(f"export of unet: torch {torch.__version__} cannot work with this model (torch.nn.")
    assert words.strip().startswith("RuntimeError: ")
    assert "report it with these lines" in " ".join(rest)


def test_what_the_standard_library_raises_counts_for_who_called_it():
    assert "diffusers" in told(lambda: UNet2DConditionModel(down_block_types=("nothing",), up_block_types=("nothing",) * 4))
    with pytest.raises(TypeError) as caught:
        skeleton("diffusers", None, {})
    assert raised_by(caught.value)[0] is None


def test_what_torch_refuses_while_we_look_on_is_the_library_s():
    def drawn():
        with InjectedNoise(torch.zeros, "toy"):
            nn.LayerNorm(3)(torch.zeros(2, 4))

    assert "torch" in told(drawn)


def test_a_bug_of_ours_stays_one_also_where_a_library_ran_it(monkeypatch):
    def broken(*_):
        return skeleton("diffusers", None, {})  # our frame is the innermost: TypeError of getattr

    monkeypatch.setattr(nn.Linear, "forward", broken)
    with pytest.raises(TypeError), vendors("export of unet"):
        nn.Linear(2, 2)(torch.zeros(3))

    def wrapped():
        try:
            nn.Linear(2, 2)(torch.zeros(3))
        except TypeError as error:
            raise RuntimeError("capture failed") from error

    with pytest.raises(RuntimeError, match="capture failed"), vendors("export of unet"):
        wrapped()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device", "/x"), MemoryError()])
def test_what_the_machine_refuses_passes(monkeypatch, error):
    monkeypatch.setattr(nn.Linear, "forward", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)), vendors("export of unet"):
        nn.Linear(2, 2)(torch.zeros(3))


def test_a_sentence_of_ours_inside_a_librarys_exception_is_the_sentence():
    def wrapped():
        raise RuntimeError("torch.export failed") from ParityError("out of limits")

    with pytest.raises(ParityError, match="out of limits"), vendors("export of unet"):
        wrapped()


def test_a_long_message_loses_its_middle():
    class Long(nn.Module):
        def forward(self):
            return torch.nn.functional.interpolate(torch.zeros(1, 1, 2, 2), size=(2,), mode="x" + "\n".join(map(str, range(50))))

    text = told(Long())
    assert len(text.splitlines()) < 20


def test_numpy_is_nobody():
    with pytest.raises(ValueError, match="reshape") as caught:
        np.reshape(np.zeros(3), (2, 2))
    assert raised_by(caught.value)[0] is None


@pytest.mark.parametrize(
    ("verb", "function"),
    [
        ("check", "exporter.build.check"),
        ("debug", "exporter.build.debug"),
        ("bench", "exporter.bench.run.bench"),
        ("inspect", "exporter.report.describe.bundle"),
        ("rebuild", "engines.rebuild.rebuild"),
    ],
)
def test_every_verb_ends_in_it(monkeypatch, capsys, tmp_path, verb, function):
    monkeypatch.setattr(function, lambda *_, **__: nn.Linear(2, 2)(torch.zeros(3)))
    arguments = [verb, str(tmp_path), *(["unet"] if verb == "debug" else [])]
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    told = capsys.readouterr().err
    assert caught.value.code == UnsupportedError.exit_code
    assert told.startswith(f"error: t2iexport {' '.join(arguments)}: torch {torch.__version__} cannot work with this model")
    monkeypatch.setattr(function, lambda *_, **__: {}["bug"])
    with pytest.raises(KeyError):
        cli.main(arguments)
