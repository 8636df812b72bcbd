"""What `t2iexport debug` prints, of a report made by hand: the blame table, the layers around the fault, what repeats it."""

from dataclasses import replace

import pytest

from engines.bundle import Verdict
from exporter.parity.debug import Fault, LayerReport
from exporter.parity.layers import Layers
from exporter.parity.search import FirstFault
from exporter.recipe.limits import STAGES
from exporter.report import fault as printed
from tests.exporter.graph import small

#: Twelve values in a row; what makes the seventh is wrong.
NAMES = [f"v{number}" for number in range(12)]
SCORES = {name: 90.0 if number < 7 else 20.0 for number, name in enumerate(NAMES)}


def layers():
    lines = ["v0 = Relu(x)", *(f"v{number} = Abs(v{number - 1})" for number in range(1, 12)), "y = Add(v11, one)"]
    return Layers(small.model(*lines), {**dict.fromkeys(NAMES, ""), "v7": "block.conv"})


def line(stage="onnx", **changes):
    values = {"relative_l2": 0.5, "psnr": 20.0}
    made = Verdict(
        part="unet", stage=STAGES[stage], case="t 500, small", values=values, limit={"psnr": 60.0}, passed=False, note="x"
    )
    return made.model_copy(update=changes)


@pytest.fixture
def fault():
    whole = layers()
    return Fault(
        line=line(),
        found=FirstFault("v7", SCORES, hidden=False),
        module="block.conv",
        nodes=tuple(whole.nodes("v7")),
        alone=21.0,
        floor=60.0,
        command="polygraphy run it",
        layers=whole,
    )


def text(fault, lint=()):
    return printed.text(LayerReport((line(),), tuple(lint), fault))


def after(fault):
    """The lines below the blame table and what is said of the graph."""
    return text(fault).split("\n\n", 2)[2].splitlines()


def test_a_part_within_its_limits_has_no_layer_to_blame():
    good = line(passed=True, values={"relative_l2": 1e-6, "psnr": 110.0})
    lines = printed.text(LayerReport((good,), (), None)).splitlines()
    assert lines[1] == "unet"
    assert lines[-4:] == [
        "",
        "graph: valid ONNX, shapes agree, every weight is read and finite",
        "",
        "Every line is within its limits: there is no layer to blame.",
    ]


def test_what_is_wrong_with_the_graph_is_a_line_each(fault):
    lines = text(fault, ["a is b", "c is d"]).splitlines()
    assert [each for each in lines if each.startswith("graph: ")] == ["graph: a is b", "graph: c is d"]


def test_the_table_comes_first(fault):
    lines = text(fault).splitlines()
    assert lines[0].split() == ["rel.", "L2", "PSNR", "limit"]
    assert "FAIL" in lines[2]


def test_layers_around_the_first_that_is_off(fault):
    lines = after(fault)
    assert lines[0] == f"unet, {STAGES['onnx']}, t 500, small: layer by layer, limit 60 dB"
    shown = [each.split() for each in lines[1:11]]
    # Six before it and three behind it.
    assert [(each[2], each[3]) for each in shown] == [
        *(("ok", f"v{number}") for number in range(1, 7)),
        *(("FAIL", f"v{number}") for number in range(7, 11)),
    ]
    assert shown[0][:2] == ["90.0", "dB"]
    assert lines[7].endswith("v7  Abs of block.conv")
    assert lines[11] == ""
    assert lines[12] == "first value out of limits: v7, made by Abs of block.conv"
    assert lines[13] == "module of the source:      block.conv"


def test_the_smallest_graph_and_what_repeats_it(fault):
    lines = after(fault)
    assert lines[14].startswith("smallest graph showing it: 1 node, Abs ")
    assert lines[14].endswith(": 21.0 dB")
    assert lines[-3:] == ["", "It is repeated by:", "  polygraphy run it"]


def test_many_nodes_are_counted_and_the_first_six_named(fault):
    many = replace(fault, nodes=tuple(fault.layers.model.graph)[:8])
    for number, node in enumerate(many.nodes):
        node.name = f"n{number}"
    told = after(many)[14]
    assert told == "smallest graph showing it: 8 nodes, Relu n0, Abs n1, Abs n2, Abs n3, Abs n4, Abs n5 and 2 more: 21.0 dB"


def test_a_fault_at_the_start_shows_what_there_is(fault):
    found = FirstFault("v0", dict.fromkeys(NAMES[:3], 20.0), hidden=False)
    lines = after(replace(fault, found=found))
    assert [each.split()[3] for each in lines[1:4]] == ["v0", "v1", "v2"]
    assert lines[4] == ""


def test_an_end_that_was_not_looked_at_is_below_the_last_that_was(fault):
    found = FirstFault("v11", {name: SCORES[name] for name in NAMES[:9]}, hidden=False)
    lines = after(replace(fault, found=found))
    assert [each.split()[3] for each in lines[1:8]] == ["v2", "v3", "v4", "v5", "v6", "v7", "v8"]
    assert lines[9].startswith("first value out of limits: v11, made by Abs")


def test_nothing_names_the_module(fault):
    assert "module of the source:      unknown: neither nodes nor weights name one" in after(replace(fault, module=""))


def test_a_fault_that_looking_hides(fault):
    told = "The fault is gone when the values in front of it are looked at: the engine makes it where it fuses them."
    assert told not in after(fault)
    assert told in after(replace(fault, found=replace(fault.found, hidden=True)))


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("passes", "The graph does not show it in ONNX Runtime, which may compute a half-precision layer in float32."),
        ("onnx", "No part of the graph shows it when it is fed rightly: small errors of many layers add up."),
        ("engine", "No part of the graph shows it when it is fed rightly: small errors of many layers add up."),
    ],
)
def test_a_fault_that_no_part_shows(fault, stage, told):
    lines = after(replace(fault, line=line(stage), alone=60.0))
    assert lines[14] == told
    assert not [each for each in lines if each.startswith("smallest graph")]


def test_an_engine_of_something_else_is_not_a_layer_s_fault(fault):
    stale = replace(fault, line=line("engine", backend="openvino"), stale=True, alone=99.0)
    assert after(stale) == [
        (
            f"unet, {STAGES['engine']} of openvino, t 500, small: the engine in the bundle is wrong, and one built here of the "
            "same graph is right: 99.0 dB."
        ),
        "No layer is to blame. It was built of another graph, by another version, or on another machine: t2iexport rebuild.",
    ]


def test_of_many_operators_the_last_four_are_named_without_sizes(fault):
    one = Layers(
        small.model("a = Relu(x)", "s = Shape(a)", "b = Abs(a)", "c = Neg(b)", "d = Reshape(c, s)", "y = Tanh(d)"), {"y": "head"}
    )
    found = FirstFault("y", {"y": 20.0}, hidden=False)
    lines = after(replace(fault, found=found, layers=one, module="head"))
    assert lines[1].endswith("y  Abs → Neg → Reshape → Tanh of head")
