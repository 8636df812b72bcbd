"""Scoring: what counts as right, and what the table says."""

from contextlib import contextmanager

import numpy as np
from click.testing import CliRunner
from PIL import Image

from engines.pipeline import Pipeline
from tools.demo import captions, scenes
from tools.demo.score import complaint, main, score, table

PLACES = {
    "left of": ((16, 32), (48, 32)),
    "right of": ((48, 32), (16, 32)),
    "above": ((32, 16), (32, 48)),
    "below": ((32, 48), (32, 16)),
}


def honest(prompts, _seed):
    """Draws exactly what is stated; the unsaid is white and small."""
    drawn = []
    for said in map(captions.parse, prompts):
        places = PLACES[said.relation] if said.relation else ((30, 30),)
        things = tuple(
            scenes.Thing(size or "small", colour, shape, x, y)
            for (size, colour, shape), (x, y) in zip(said.objects, places, strict=True)
        )
        drawn.append(scenes.draw(scenes.Scene(things, said.background or "white", said.relation)))
    return np.stack(drawn)


def stubborn(prompts, seed):
    """Draws a large red circle, whatever is asked."""
    return honest(["a large red circle on a brown background"] * len(prompts), seed)


def test_an_honest_source_scores_full_marks():
    result = score(honest, captions.evaluation_prompts(20), batch=7)
    shares = {group: entry["share"] for group, entry in result.items() if isinstance(entry, dict)}
    assert shares == {"single": 1, "held-out": 1, "all-single": 1, "two": 1, "all": 1}
    assert result["held-out"]["total"] == 2


def test_a_stubborn_source_scores_nothing_and_the_reasons_are_counted():
    result = score(stubborn, captions.evaluation_prompts(20), batch=40)
    assert result["two"]["right"] == 0
    assert result["two"]["complaints"] == {"wrong number of objects": 20}
    assert "| two objects | 0 / 20 | 0.0% |" in table(result)


def test_several_processes_read_as_one_does():
    def half(prompts, seed):
        right, wrong = honest(prompts, seed), stubborn(prompts, seed)
        return np.where(np.arange(len(prompts))[:, None, None, None] % 2, right, wrong)

    prompts = captions.evaluation_prompts(20)
    one, two = (score(half, prompts, batch=40, processes=number) for number in (1, 2))
    groups = [group for group, entry in one.items() if isinstance(entry, dict)]
    assert 15 < one["all"]["right"] < 25
    assert [one[group] for group in groups] == [two[group] for group in groups]


def test_reasons():
    (picture,) = stubborn(["any"], 0)
    for text, reason in (
        ("a red circle", None),
        ("a small red circle", "wrong size or relation"),
        ("a blue circle", "wrong colour or shape"),
        ("a red circle on white", "wrong background"),
        ("a red circle above a blue circle", "wrong number of objects"),
    ):
        assert complaint(picture, captions.parse(text)) == reason


def test_a_bundle_is_asked_for_the_scales_that_are_given(monkeypatch, tmp_path):
    asked = []

    class Drawing:
        def generate(self, prompts, **wishes):
            asked.append(wishes)
            return [Image.fromarray(each) for each in honest(prompts, 0)]

    @contextmanager
    def opened(_path):
        yield Drawing()

    monkeypatch.setattr(Pipeline, "open", opened)
    words = ["--count", "2", "--processes", "1", "--guidance", "1", "--pag", "3", "--json", str(tmp_path / "told.json")]
    done = CliRunner().invoke(main, ["--bundle", str(tmp_path), *words])
    assert done.exit_code == 0, done.output
    assert "| all | 4 / 4 |" in done.output
    assert [(each["guidance_scale"], each["pag_scale"]) for each in asked] == [(1.0, 3.0)]
    assert '"pag": 3.0' in (tmp_path / "told.json").read_text()
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert "--pag is for a bundle" in refused.output
