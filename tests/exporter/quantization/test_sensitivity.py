"""Each layer is quantized alone, and the measurement is what the written graph does."""

import pytest

from engines.errors import UnsupportedError
from exporter.quantization.calibration import Spec
from exporter.quantization.sensitivity import Scan
from tests.exporter.passes import layered
from tests.exporter.passes.layered import MIDDLE, error, quantized


def test_a_budget_keeps_the_most_sensitive(tmp_path):
    found, _ = quantized(tmp_path, format="int4-weights", budget=0.5)
    assert set(found.sensitivity) == MIDDLE
    ranked = sorted(found.sensitivity, key=lambda name: -found.sensitivity[name])
    assert set(found.layers) == set(ranked[:2])
    assert all("dB when quantized alone" in found.kept[name] for name in ranked[2:])


def test_keep_above_is_kept(tmp_path):
    free, _ = quantized(tmp_path / "free", format="int4-weights", budget=1.0)
    wish = free.measured + 3
    found, file = quantized(tmp_path / "held", format="int4-weights", keep_above=wish)
    assert found.measured >= wish
    assert len(found.layers) < len(free.layers)
    assert error(file, tmp_path / "held" / "export" / "unet.onnx", graph_optimization="none") >= wish - 0.5


def test_the_scan_measures_what_the_written_graph_does(tmp_path):
    for options in ({"format": "int8"}, {"format": "int4-weights"}, {"format": "int8", "outputs": True}):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        found, file = quantized(place, budget=1.0, **options)
        assert error(file, place / "export" / "unet.onnx", graph_optimization="none") == pytest.approx(found.measured, abs=0.3)


def test_what_nothing_can_keep_is_said(tmp_path):
    with pytest.raises(UnsupportedError, match=r"no layer can be quantized at 150 dB; the least sensitive, \w+, alone leaves"):
        quantized(tmp_path, format="int8", keep_above=150.0)


@pytest.fixture
def scan(tmp_path):
    """Every layer in 4 bits, and before that in 8."""
    graph = layered.write(tmp_path / "export")
    (tmp_path / "work").mkdir()
    forms = {name: (Spec(weights="int8"), Spec(weights="int4")) for name in ("middle", "to_q", "to_out")}
    with Scan(graph, forms, layered.cases(2), layered.SIGNATURE, tmp_path / "work", 16) as scan:
        yield scan


def test_nothing_moved_is_nothing_lost_and_more_bits_lose_less(scan):
    assert scan.error([]) == 200.0
    alone = scan.alone()
    assert list(alone) == [(name, level) for name in ("middle", "to_q", "to_out") for level in (1, 2)]
    for name in ("middle", "to_q", "to_out"):
        assert alone[name, 1] > alone[name, 2] + 10
    assert scan.error([("middle", 1), ("middle", 2)]) == pytest.approx(alone["middle", 2], abs=0.01), "the further one counts"
    assert scan.error([("middle", 2), ("to_q", 2)]) < min(alone["middle", 2], alone["to_q", 2]) + 1


@pytest.mark.parametrize(("floor", "count"), [(100.0, 0), (50.0, 1), (30.0, 3), (29.9, 3), (10.0, 4), (0.0, 4)])
def test_as_many_moves_as_hold_the_floor(scan, monkeypatch, floor, count):
    errors, asked = [200.0, 50.0, 40.0, 30.0, 20.0], []
    monkeypatch.setattr(scan, "error", lambda moves: asked.append(len(moves)) or errors[len(moves)])
    assert scan.most([("middle", 1), ("middle", 2), ("to_q", 1), ("to_q", 2)], floor) == (count, errors[count])
    assert len(asked) <= 3
