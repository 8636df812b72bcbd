"""Which operators a network's time goes to, as its library tells it: of the toy bundle with real graphs."""

import json

import pytest

from engines.backends import OperatorRun
from exporter.bench import figures, run
from exporter.bench.operators import OperatorKind, PartOperators, operators
from tests.engines import small
from tests.engines.test_real_engines import graphs
from tests.exporter.bench.test_run import report

STEPS = (
    OperatorRun("Conv", "float", 0.25, "fast"),
    OperatorRun("Add", "float", 0.001),
    OperatorRun("Conv", "float", 0.5, "fast"),
    OperatorRun("Conv", "float", 0.125),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small.make(tmp_path_factory.mktemp("real") / "bundle", graphs=graphs()).folder


def test_steps_of_one_operator_and_kernel_are_one_kind_the_longest_first():
    part = PartOperators(part="unet", backend="b", calls=3, steps=STEPS)
    assert part.kinds() == [
        OperatorKind("Conv", "fast", 2, 0.75),
        OperatorKind("Conv", "", 1, 0.125),
        OperatorKind("Add", "", 1, 0.001),
    ]
    assert part.seconds == pytest.approx(0.876)


def test_every_network_of_a_picture_is_looked_into(path):
    said = []
    found = {part.part: part for part in operators(path, "a sea", {"steps": 2}, say=said.append)}
    assert {name: part.calls for name, part in found.items()} == {"text_encoder": 1, "unet": 2, "vae_decoder": 1}
    assert {"Split", "Unsqueeze"} <= {step.operator for step in found["unet"].steps}
    # One call, not the one before it too, which fills caches.
    assert [step.operator for step in found["unet"].steps].count("Split") == 1
    assert {step.kernel for part in found.values() for step in part.steps} == {"CPU"}
    assert said == [f"looking into {name} on onnxruntime" for name in found]


def test_a_benchmark_tells_them_when_asked(path, monkeypatch):
    monkeypatch.setattr(run, "WARM_UP", 0)
    assert not run.bench(path, repeats=1, cold=False).operators
    found = run.bench(path, ["onnxruntime"], repeats=1, cold=False, profile=True)
    assert [part.part for part in found.operators] == ["text_encoder", "unet", "vae_decoder"]  # the rival is the same backend
    told = json.loads(json.dumps(figures.content(found)))["operators"]
    assert [each["part"] for each in told][:3] == ["text_encoder", "unet", "vae_decoder"]
    assert {kind["operator"] for kind in told[1]["kinds"]} >= {"Split"}


def test_the_table_has_a_row_for_what_takes_a_hundredth_and_one_for_the_rest():
    parts = (
        PartOperators(part="unet", backend="b", calls=3, steps=STEPS),
        PartOperators(part="vae_decoder", backend="b", calls=1, steps=()),
    )
    tables = figures.tables(report(operators=parts))
    rows = tables["a call of unet by b, operator by operator, which a picture calls 3 times"]
    assert [list(row.values()) for row in rows] == [
        ["Conv", "fast", "2", "750", "85.6%"],
        ["Conv", "", "1", "125", "14.3%"],
        ["1 other", "", "1", "1", "0.1%"],
        ["all", "", "4", "876", "100.0%"],
    ]
    assert tables["a call of vae_decoder by b, operator by operator"] == "the library does not tell"
