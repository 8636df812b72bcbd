"""The tool runs over a small bundle of real engines, and what must hold at any size holds."""

import json

import pytest
from click.testing import CliRunner

pytest.importorskip("onnxruntime")
pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from tests.engines import small
from tests.engines.test_real_engines import graphs
from tools.measure.serve import main

pytestmark = pytest.mark.long


@pytest.mark.timeout(600)
def test_every_section_measures(tmp_path):
    small.make(tmp_path / "small", graphs=graphs())
    numbers = {"--rounds": 3, "--repeats": 1, "--seconds": 1, "--vanish": 8, "--malformed": 24}
    words = [str(tmp_path / "small"), "--steps", "2", "--json", str(tmp_path / "found.json")]
    words += [str(word) for pair in numbers.items() for word in pair]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["overhead"]["rounds_of_same_files"] == 3
    assert {(row["batching"], row["clients"], row["steps"]) for row in found["clients"]} == {
        (way, count, kind) for way in ("continuous", "fixed") for count in (1, 8) for kind in ("same", "mixed")
    }
    assert all(row["failed"] == 0 and row["pictures"] > 0 for row in found["clients"] if row["steps"] == "same")
    assert found["seeds"]["differing"] == 0
    faults = found["faults"]
    assert (faults["statuses"], faults["sentences"]) == ({"400": 24}, 24)
    assert (faults["exit_status"], faults["failed_pictures"]) == (0, 0)
    assert len(faults["answers_around_sigterm"]) == 8
    assert set(faults["answers_around_sigterm"]) <= {"200", "503", "refused"}
    assert found["soak"]["pictures"] > 0
    assert "overhead:" in done.output
