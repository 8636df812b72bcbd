"""Energy by the processors' counters: packages and memory, each once; one that wraps; and none."""

import pytest

from exporter.bench import energy

ZONES = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1": "psys"}


@pytest.fixture
def root(tmp_path):
    for zone, name in ZONES.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("10000000\n")
        count(tmp_path, zone, 4_000_000)
    return tmp_path


def count(root, zone, microjoules):
    (root / zone / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_and_memory_count_each_once(root):
    before = energy.read(root)
    for zone in ZONES:
        count(root, zone, 5_500_000)
    assert energy.joules(before, energy.read(root)) == 3.0


def test_a_counter_may_wrap(root):
    before = energy.read(root)
    count(root, "intel-rapl:0", 500_000)
    assert energy.joules(before, energy.read(root)) == 6.5


def test_without_counters_nothing_is_told(root, tmp_path):
    assert energy.read(tmp_path / "none") == {}
    assert energy.joules({}, {}) is None
    (root / "intel-rapl:0" / "energy_uj").unlink()
    assert energy.read(root) == {}
