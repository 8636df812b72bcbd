"""The table and the curves say what was measured."""

from tools.measure.ranges import Point, draw, table

POINTS = [
    Point(way, run, step + 1, 999.0 - 500 * step, base + step)
    for way, base in (("min–max", 30.0), ("step by step", 33.0))
    for run, steps in (("2 steps", 2), ("1 steps", 1), ("guidance off, 2 steps", 2))
    for step in range(steps)
]


def test_worst_and_mean_of_every_way():
    assert table(POINTS).splitlines()[2:] == ["| min–max | 30.0 / 30.4 dB |", "| step by step | 33.0 / 33.4 dB |"]


def test_the_longest_runs_from_noise_to_picture():
    panels = draw(POINTS).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["2 steps", "guidance off, 2 steps"]
    for axes in panels:
        assert axes.get_xlim()[0] > axes.get_xlim()[1]
        assert [list(line.get_ydata()) for line in axes.lines] == [[30.0, 31.0], [33.0, 34.0]]
        assert [line.get_label() for line in axes.lines] == ["min–max (30.5 dB)", "step by step (33.5 dB)"]
