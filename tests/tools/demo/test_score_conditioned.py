"""Pictures are drawn with their inputs, counted by group, and laid out as a table."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from tools.demo.conditioned import edge_cases, edit_cases
from tools.demo.scenes import draw
from tools.demo.score_conditioned import STRENGTH, Row, drawn, scored, steered, table, timed


class Painter:
    """Stands for a bundle: draws the scene that is asked for, or without its ControlNet nothing."""

    def __init__(self, cases, *scales):
        self.cases, self.calls = {case.given.tobytes(): case for case in cases}, []
        guidance = SimpleNamespace(scales=[SimpleNamespace(name=name) for name in scales])
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(guidance=guidance))

    def generate(self, prompts, *, seed, steps, inputs):
        self.calls.append((len(prompts), seed, steps))
        cases = [self.cases[np.asarray(image).tobytes()] for image in inputs["image"]]
        assert prompts == [case.text for case in cases]
        on = inputs.get(STRENGTH, 1.0)
        return [Image.fromarray((draw(case.wanted) * on).astype(np.uint8)) for case in cases]


def test_every_case_is_drawn_with_its_picture_and_counted_in_its_group():
    cases = edge_cases(6)
    painter = Painter(cases, "guidance_scale", STRENGTH)
    assert steered(painter)
    assert scored(drawn(painter, cases, 3), cases) == {
        group: {"stated": 6, "placed": 6, "right": 6} for group in ("single", "two")
    }
    assert painter.calls == [(8, 3, None), (4, 11, None)]
    assert scored(drawn(painter, cases, **{STRENGTH: 0.0}), cases)["two"]["placed"] == 0


def test_an_editing_bundle_has_no_controlnet():
    cases = edit_cases(2)
    painter = Painter(cases, "guidance_scale", "image_guidance_scale")
    assert not steered(painter)
    assert scored(drawn(painter, cases), cases)["single"] == {"done": 2, "kept": 2, "right": 2}


def test_times_are_of_whole_pictures_and_leave_out_the_first_round():
    cases = edit_cases(2)

    class Alone:
        bundle = SimpleNamespace(manifest=SimpleNamespace(inputs={"image": None}))

        def generate(self, prompt, *, seed, steps, inputs):
            assert (prompt, steps) == (cases[seed % 4].text, 10)
            assert np.array_equal(np.asarray(inputs["image"]), cases[seed % 4].given)

    found = timed({"a": Alone(), "b": Alone()}, cases, 10, 2)
    assert {*found} == {"a", "b"}
    assert all(seconds >= 0 <= busy for seconds, busy in found.values())


def test_the_table_has_a_line_for_each_row():
    counts = {"single": {"done": 9, "kept": 8, "right": 7}, "two": {"done": 6, "kept": 5, "right": 4}}
    rows = [
        Row("demo-edit", 9_260_000, 0.5504, 0.9, counts, 10),
        Row("demo", 9_250_000, 0.25, 0.5, {}, 10),
        Row("off", 1, None, None, counts, 10),
    ]
    head, _, *lines = table(rows).splitlines()
    assert head.startswith(
        "| bundle | parameters a step | ms a picture | ms of processors | one object: done | one object: kept | "
    )
    assert lines[0] == "| demo-edit | 9,260,000 | 550 | 900 | 9 / 10 | 8 / 10 | 7 / 10 | 6 / 10 | 5 / 10 | 4 / 10 |"
    assert lines[1] == "| demo | 9,250,000 | 250 | 500 |  |  |  |  |  |  |"
    assert lines[2].startswith("| off | 1 |  |  | 9 / 10 |")
