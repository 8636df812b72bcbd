"""The picture shows what the search wrote down."""

import json

from click.testing import CliRunner

from tools.measure.draw_search import draw, main

FOUND = {
    "of": "parameters",
    "budget": 0.5,
    "alone": [{"piece": "mid_block", "saves": 0.3, "change": 0.01}, {"piece": "down_blocks.0", "saves": 0.1, "change": 0.4}],
    "curve": [
        {"gone": "", "share": 1.0, "change": 0.0},
        {"gone": "mid_block", "share": 0.7, "change": 0.01},
        {"gone": "down_blocks.0", "share": 0.5, "change": 0.3},
    ],
}


def test_pieces_and_curve_as_found():
    left, right = draw(FOUND).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["mid_block", "down_blocks.0"]
    assert left.get_ylim()[0] > left.get_ylim()[1]
    (line,) = right.lines
    assert list(line.get_xdata()) == [0.01, 0.3]
    assert [text.get_text().strip() for text in right.texts] == ["70.0% left", "50.0% left"]


def test_a_bundle_without_a_search_is_told(tmp_path):
    (tmp_path / "passes").mkdir()
    done = CliRunner().invoke(main, [str(tmp_path), str(tmp_path / "x.png")])
    assert done.exit_code == 1
    assert "no prune with search" in done.output
    (tmp_path / "passes" / "unet-prune.json").write_text(json.dumps(FOUND))
    assert CliRunner().invoke(main, [str(tmp_path), str(tmp_path / "x.png")]).exit_code == 0
    assert (tmp_path / "x.png").stat().st_size > 1000
