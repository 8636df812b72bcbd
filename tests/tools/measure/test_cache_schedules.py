"""The table of schedules: a row for each number of whole steps, prompts spread over a file."""

from click.testing import CliRunner

from exporter.caching.search import CacheSchedule
from tools.measure import cache_schedules

RECIPE = "recipes/demo-cached.yaml"


def test_a_row_says_both_kinds(monkeypatch, tmp_path):
    asked = []

    def beside(_family, recipe, _table, counts):
        asked.append((recipe.checks.prompts, counts))
        return [
            (CacheSchedule(tuple(range(1, n + 1)), 0, n / 25, (30.0, 32.0)), CacheSchedule((1,), 0, 0.3, (40.0, 41.0)))
            for n in counts
        ]

    monkeypatch.setattr(cache_schedules, "beside", beside)
    (tmp_path / "prompts.txt").write_text("\n".join(f"star {n}" for n in range(10)))
    options = ["--prompts", str(tmp_path / "prompts.txt"), "--count", "2", "--whole", "13,9"]
    done = CliRunner().invoke(cache_schedules.main, [RECIPE, *options], catch_exceptions=False)
    assert asked == [(("star 0", "star 5"), [13, 9])]
    lines = [line.split("  ") for line in done.output.splitlines() if "of 25" in line]
    assert [[cell.strip() for cell in line if cell] for line in lines] == [
        ["13 of 25", "0.520, 0.300", "31.0 dB", "40.5 dB"],
        ["9 of 25", "0.360, 0.300", "31.0 dB", "40.5 dB"],
    ]
