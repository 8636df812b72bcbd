"""Ways to choose ranges are measured on a bundle's own recordings."""

from tools.measure.ranges import WAYS, measure


def test_every_recorded_call_of_every_way(built):
    ways = {name: WAYS[name] for name in ("min–max", "SmoothQuant, step by step")}
    points = measure(built.path, ways)
    runs = [point for point in points if point.way == "min–max"]
    assert len(points) == 2 * len(runs)
    assert {(point.run, point.step) for point in runs} >= {("4 steps", step) for step in (1, 2, 3, 4)}
    assert all(10 < point.decibels < 90 for point in points)
    assert [point.decibels for point in runs] != [point.decibels for point in points if point not in runs]
