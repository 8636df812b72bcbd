"""What the source was seen to do is read back as it was written, without pickles."""

import numpy as np
import pytest

from exporter.part import Case
from exporter.reference import recording
from exporter.reference.recording import Run, RunSource, Setting, load_cases, load_run, save_cases, save_run, trajectory

SETTING = Setting("guidance 3", ("a", "é — 木"), None, 2, 32, 64, 3.0)


def array(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def run(source=None, **changes):
    made = {
        "setting": SETTING, "times": np.array([999.0, 499.5]), "model_inputs": array(2, 1, 4, 2, 2),
        "model_outputs": array(2, 1, 4, 2, 2), "draws": array(1, 1, 4, 2, 2), "latent": array(1, 4, 2, 2),
        "image": array(1, 8, 8, 3),
    }  # fmt: skip
    return Run(**made | changes, source=source)


PIXELS = np.ones((8, 8, 3), np.uint8)


FROM = {"noise": None, "image": RunSource(PIXELS, None, array(1, 4, 2, 2)), "mask": RunSource(PIXELS, np.eye(8) > 0, array(1))}


@pytest.mark.parametrize("source", FROM.values(), ids=FROM)
def test_a_run_is_read_back(tmp_path, source):
    before = run(source, setting=Setting(**{**vars(SETTING), "strength": 0.5, "masked": source is not None}))
    save_run(before, tmp_path / "run.npz")
    after = load_run(tmp_path / "run.npz")
    assert after.setting == before.setting
    for name in ("times", "model_inputs", "model_outputs", "draws", "latent", "image"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype
    if source is None:
        assert after.source is None
    else:
        np.testing.assert_array_equal(after.source.pixels, source.pixels)
        np.testing.assert_array_equal(after.source.latent, source.latent)
        assert (after.source.anew is None) == (source.anew is None)


def test_cases_are_read_back_in_their_order(tmp_path):
    cases = [
        Case(f"call {index}", {"latent": array(index + 1, 2), "ids": np.arange(index)}, {"out": array(1, 2)}, {"out": array(4)})
        for index in range(12)
    ]
    save_cases([*cases, Case("bare", {}, {})], tmp_path / "unet.npz")
    found = load_cases(tmp_path / "unet.npz")
    assert [case.label for case in found] == [*(case.label for case in cases), "bare"]
    for before, after in zip(cases, found, strict=False):
        for side in ("inputs", "source", "passes"):
            assert getattr(after, side).keys() == getattr(before, side).keys()
            for name, value in getattr(before, side).items():
                np.testing.assert_array_equal(getattr(after, side)[name], value)
    assert (found[-1].inputs, found[-1].source, found[-1].passes) == ({}, {}, {})


def test_runs_are_listed_in_their_order_however_many(tmp_path):
    runs = tuple(run(setting=Setting(**{**vars(SETTING), "label": f"run {number}"})) for number in range(12))
    folder = recording.RecordingFolder(tmp_path)
    folder.write(recording.Recording(runs, {}, {}))
    assert [load_run(file).setting.label for file in folder.runs] == [f"run {number}" for number in range(12)]


def test_no_cases_are_none(tmp_path):
    save_cases([], tmp_path / "unet.npz")
    assert load_cases(tmp_path / "unet.npz") == ()


def test_a_pickle_is_not_opened(tmp_path):
    np.savez(tmp_path / "unet.npz", labels=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_cases(tmp_path / "unet.npz")


def test_a_trajectory_is_every_call_with_the_text_of_one():
    made = run()
    case = Case("x", {"latent": array(1, 4, 2, 2), "timestep": np.zeros(1, np.float32), "prompt_embeds": array(1, 1)}, {})
    calls = trajectory(made, case)
    assert [call.label for call in calls] == ["guidance 3, step 1 of 2", "guidance 3, step 2 of 2"]
    for index, call in enumerate(calls):
        np.testing.assert_array_equal(call.inputs["latent"], made.model_inputs[index])
        np.testing.assert_array_equal(call.inputs["timestep"], np.float32([made.times[index]]))
        assert call.inputs["timestep"].dtype == np.float32
        assert call.inputs["prompt_embeds"] is case.inputs["prompt_embeds"]
        np.testing.assert_array_equal(call.source["model_output"], made.model_outputs[index])


def test_the_largest_half():
    assert np.finfo(np.float16).max == recording.HALF_MAX
