"""Every backend that opens is judged once; of one that does not there is a sentence; both are kept."""

import pytest

from engines.bundle import Verdict
from engines.errors import MissingDependency, UnsupportedError
from exporter.recipe.limits import Limits
from exporter.stages import verdicts
from exporter.stages.verdicts import CheckResult


def verdict(backend=None, stage="source → passes"):
    return Verdict(part="unet", stage=stage, case="a", backend=backend, values={"psnr": 99.0}, limit={}, passed=True)


@pytest.fixture
def compared(monkeypatch):
    """What is said of each backend by its name: verdicts, or what is raised."""
    told = {
        "one": [verdict(), verdict("one", "onnx → engine")],
        "two": [verdict(), verdict("two", "onnx → engine")],
        "none": UnsupportedError("no device is here\nTake another."),
        "missing": MissingDependency("openvino", "openvino"),
    }

    def compare(_path, backend, _limits):
        if isinstance(told[backend], Exception):
            raise told[backend]
        return told[backend]

    monkeypatch.setattr("exporter.parity.compare.compare", compare)


@pytest.mark.usefixtures("compared")
def test_what_backends_share_is_told_once(tmp_path):
    found, unable = verdicts.judge(tmp_path, ["one", "two"], Limits({}))
    assert [each.backend for each in found] == [None, "one", "two"]
    assert unable == []


@pytest.mark.usefixtures("compared")
def test_a_backend_that_does_not_open_is_a_sentence_of_one_line(tmp_path):
    found, unable = verdicts.judge(tmp_path, ["none", "one", "missing"], Limits({}))
    assert [each.backend for each in found] == [None, "one"]
    assert unable[0] == "none was not run: no device is here"
    assert unable[1].startswith("missing was not run: ")
    assert len(unable) == 2


def test_both_are_kept(tmp_path):
    CheckResult(tmp_path).write([verdict("one")], ["two was not run: why"])
    assert CheckResult(tmp_path).verdicts == [verdict("one")]
    assert CheckResult(tmp_path).unable == ["two was not run: why"]
