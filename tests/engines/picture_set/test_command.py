"""`t2iexport draw`: what it draws, that it goes on, and what it says."""

import pytest
from click.testing import CliRunner

from engines.errors import UnsupportedError
from engines.picture_set import command, ray_data
from engines.picture_set.drawer import Drawer
from tests.engines import small
from tests.engines.test_real_engines import graphs


@pytest.fixture
def draw(tmp_path):
    bundle = small.make(tmp_path / "bundle", graphs=graphs())
    (tmp_path / "prompts.txt").write_text("a\n\n b\na\nb\na\n")

    def call(*more, catch=False):
        asked = [str(bundle.folder), str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "out"), "--shard", "2", *more]
        return CliRunner().invoke(command.draw, asked, catch_exceptions=catch)

    return call


def pictures(folder):
    return {file.name: file.read_bytes() for file in (folder / "pictures").iterdir()}


def test_it_goes_on_where_it_was_killed(draw, tmp_path, monkeypatch):
    whole = draw("-o", str(tmp_path / "whole"))
    assert "5 pictures in 3 shards; 0 are there already" in whole.stderr
    assert "3 of 3 shards: " in whole.stderr
    drawn, own = [], Drawer.__call__

    def killed(self, row):
        drawn.append(row["number"])
        if drawn == [0, 1]:
            raise KeyboardInterrupt
        return own(self, row)

    monkeypatch.setattr(Drawer, "__call__", killed)
    draw(catch=True)
    assert "1 are there already" in draw().stderr
    assert drawn == [0, 1, 1, 2]
    assert pictures(tmp_path / "out") == pictures(tmp_path / "whole")
    assert len(pictures(tmp_path / "out")) == 5
    assert "3 are there already" in draw().stderr
    assert drawn == [0, 1, 1, 2]


def test_a_cluster_is_given_what_is_left(draw, monkeypatch):
    asked = []

    def cluster(address, shards, arguments, *, cpus, gpus):
        asked.append((address, [shard.number for shard in shards], arguments[1:], cpus, gpus))
        for shard in reversed(shards):
            yield {"number": shard.number, "pictures": [b""] * len(shard.prompts), "error": ""}

    monkeypatch.setattr(ray_data, "draw", cluster)
    assert draw("--ray", "auto", "--gpus", "0.5", "--steps", "2").exit_code == 0
    assert asked == [("auto", [0, 1, 2], (None, {"steps": 2}), 1, 0.5)]


def test_what_is_wrong_is_told(draw, tmp_path):
    with pytest.raises(UnsupportedError, match="no sampler of 3"):
        draw("--steps", "3")
    with pytest.raises(UnsupportedError, match="another set: wishes differ"):
        draw("--steps", "2")
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(UnsupportedError, match="has no prompts"):
        draw()
