"""Results on disk: whole or not there, read again as they were."""

import pytest

from exporter.sweep.result import BuildFacts, Measured, PointResult, ResultFolder

BUILT = BuildFacts(seconds=1, whole_seconds=90, size=10, parameters=5, multiply_adds={"unet": 7})
MEASURED = Measured(
    seconds=(0.1, 0.3, 0.2),
    base_seconds=(0.2, 0.6, 0.6),
    memory=1000,
    evaluations=4,
    multiply_adds=28,
    scores={"psnr": (30.0, 32.0)},
    pictures=("a.webp",),
    energy=6.0,
)
GOOD = PointResult(plan="p", task="t", build=BUILT, measured=MEASURED)


def test_a_result_is_read_as_it_was_written(tmp_path):
    folder = ResultFolder(tmp_path / "out")
    assert folder.read("abc") is None
    folder.write("abc", GOOD)
    assert ResultFolder(tmp_path / "out").read("abc") == GOOD
    assert [file.name for file in (tmp_path / "out" / "points").iterdir()] == ["abc.json"]


@pytest.mark.parametrize("damage", ["", "{", '{"plan": "p"}', '{"plan": "p", "task": "t", "newer": 1}'])
def test_one_that_cannot_be_read_is_measured_again(tmp_path, damage):
    folder = ResultFolder(tmp_path)
    folder.write("abc", GOOD)
    (tmp_path / "points" / "abc.json").write_text(damage)
    assert folder.read("abc") is None


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("latency", 0.2),
        ("speedup", 2.0),
        ("memory", 1000),
        ("size", 10),
        ("parameters", 5),
        ("build_time", 90),
        ("evaluations", 4),
        ("multiply_adds", 28),
        ("psnr", 31.0),
        ("ssim", None),
        ("energy", 6.0),
        ("cost", None),
    ],
)
def test_a_column_has_one_value(quantity, value):
    assert GOOD.value(quantity) == value
    assert PointResult(plan="p", task="t", failed="build", failure="no").value(quantity) is None


def test_a_thousand_pictures_cost_what_the_machine_does_meanwhile():
    assert GOOD.model_copy(update={"price": 1.8}).value("cost") == pytest.approx(0.1)  # 200 s


def test_what_was_built_and_not_measured_has_its_sizes():
    half = PointResult(plan="p", task="t", failed="measure", failure="no", build=BUILT)
    assert (half.value("size"), half.value("latency")) == (10, None)
