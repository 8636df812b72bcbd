"""A folder of finished points, and a run that finds them."""

import pytest

from tests.exporter.sweep.test_spec import RECIPE
from tools.measure import sweep_resume
from tools.measure.sweep_resume import Answering, resumed

SWEEP = """
recipe: base.yaml
axes:
  run.steps: [2, 1]
measures: {prompts: [a red circle], scores: [psnr], rounds: 3, shown: 1}
"""


@pytest.mark.long
def test_what_is_finished_is_found_and_nothing_is_built(tmp_path, monkeypatch):
    from exporter.stages.store import Store
    from exporter.sweep import run, spec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "base.yaml").write_text("model: {source: micro-sdxl, weights: random}\n" + RECIPE.partition("\n")[2])
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    runner = Answering()
    found = run.sweep(spec.load(tmp_path / "sweep.yaml"), tmp_path / "report", runner, Store(), lambda _: None)
    assert runner.asked == len(found) + 1
    seconds, cpu, said = resumed(tmp_path / "sweep.yaml", tmp_path / "report")
    assert f"{len(found)} points; {len(found)} are measured already" in said
    assert cpu > 0
    assert seconds > 0
    assert (tmp_path / "report" / "index.html").is_file()
    with pytest.raises(sweep_resume.click.ClickException, match="nowhere"):
        resumed(tmp_path / "nowhere.yaml", tmp_path / "report")
