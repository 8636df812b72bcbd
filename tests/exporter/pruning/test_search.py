"""A search finds what does nothing first, keeps to its budget, and writes down a block map that makes the same network."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from exporter import build
from exporter.families.sdxl import Sdxl
from exporter.part import Case
from exporter.passes.prune import Prune
from exporter.pruning import blocks, search
from exporter.pruning.moves import moves
from exporter.recipe.schema import Recipe
from exporter.report import describe
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store
from tests.exporter import equality, lessons, models

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [4], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components: {unet: {passes: [prune: {search: {budget: 0.9, calls: 3}}]}}
checks: {prompts: [a red circle]}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Attentions of two layers, of which one does nothing."""
    network = models.unet_xl()
    with torch.no_grad():
        layer = network.up_blocks[0].attentions[1].transformer_blocks[1]
        for linear in (layer.attn1.to_out[0], layer.attn2.to_out[0], layer.ff.net[2]):
            linear.weight.zero_()
            linear.bias.zero_()
    return models.save_sdxl(tmp_path_factory.mktemp("deep"), network=network)


@pytest.fixture(scope="module")
def seen(source):
    found = equality.family(Sdxl, source).part("unet", "fp32")
    cases = []
    for number in range(4):
        rng = np.random.default_rng(number)
        extent = found.signature.extent("typical")
        inputs = {
            port.name: rng.standard_normal(found.signature.shape(port, extent)).astype(np.float32)
            for port in found.signature.inputs
        }
        inputs["timestep"] = np.full(inputs["timestep"].shape, 900 - 250 * number, np.float32)
        with torch.no_grad():
            output = found.module(*(torch.from_numpy(inputs[port.name]) for port in found.signature.inputs))
        cases.append(Case(f"call {number}", inputs, {"model_output": output.numpy()}))
    return tuple(cases)


@pytest.fixture
def part(source, seen):
    """The denoiser with calls that it was seen to make; a pass may take its network over."""
    return replace(equality.family(Sdxl, source).part("unet", "fp32"), cases=seen)


def test_what_does_nothing_goes_first(part):
    before = part.network
    made = Prune(search={"budget": 0.9})(part)
    found = dict(made.metadata)["prune"]
    assert found["alone"][0]["piece"] == "up_blocks.0.attentions.1: layer 1"
    assert found["curve"][1]["gone"] == "up_blocks.0.attentions.1: layer 1"
    assert found["curve"][1]["change"] < 1e-5 < found["alone"][1]["change"]
    shares = [point["share"] for point in found["curve"]]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] <= 0.9 < shares[-2]
    kept, whole = (sum(value.numel() for value in network.parameters()) for network in (made.network, before))
    assert kept == found["curve"][-1]["left"]
    assert whole == found["full"]
    assert f"keeps {kept:,} of {whole:,} parameters" in made.notes[-1]


def test_the_change_is_that_of_the_network_that_it_makes(part):
    made = Prune(search={"budget": 0.85, "calls": 4})(part)
    errors = []
    for case in part.cases:
        with torch.no_grad():
            said = made.module(*(torch.from_numpy(case.inputs[port.name]) for port in part.signature.inputs)).numpy()
        wanted = case.source["model_output"]
        errors.append(((said - wanted) ** 2).sum() / (wanted**2).sum())
    assert dict(made.metadata)["prune"]["curve"][-1]["change"] == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-4)


def test_the_choice_is_a_block_map_that_makes_the_same_network(source, part):
    prune = Prune(search={"budget": 0.85})
    config = dict(part.network.config)
    made = prune(part)
    metadata = json.loads(json.dumps(dict(made.metadata)))["prune"]
    mapped = Prune(blocks=metadata["blocks"])
    again = mapped(equality.family(Sdxl, source).part("unet", "fp32"))
    assert prune.moved(config, metadata) == mapped.moved(config, {})
    states = [network.state_dict() for network in (made.network, again.network)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert json.dumps(metadata["blocks"]) in made.notes[-1]


def test_time_is_measured_piece_by_piece(part):
    outlines = search._Outlines(part.network)
    clock = search._Clock(part, outlines)
    whole = blocks.whole(part.network.config)
    assert clock(whole) == clock._whole > 0
    assert all(clock(cut) < clock(whole) for _, cut in moves(whole) if outlines.fit(cut))
    assert "up_blocks.0.attentions.1.transformer_blocks.1" in clock._pieces
    # Pieces do not count those inside them twice.
    assert sum(clock._pieces.values()) < 1.5 * clock._whole
    made = dict(Prune(search={"budget": 0.9, "of": "time"})(part).metadata)["prune"]
    assert made["unit"] == "ms"
    assert made["curve"][-1]["share"] <= 0.9


def test_an_attention_stays(part):
    now, outlines = blocks.whole(part.network.config), search._Outlines(part.network)
    while smaller := next((cut for _, cut in moves(now) if outlines.fit(cut)), None):
        now = smaller
    assert any(stage.layers for stage in (*now.down, *now.up))


def test_a_budget_that_nobody_can_meet(part):
    with pytest.raises(UnsupportedError, match=r"0.01 of the parameters cannot be met; with all that can go gone, 0\.\d+ of"):
        Prune(search={"budget": 0.01})(part)


@pytest.mark.parametrize("options", [{"budget": 0}, {"budget": 1.0}, {}, {"budget": 0.5, "of": "memory"}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match="search"):
        Prune(search=options)


def test_a_build_searches_on_what_the_source_was_seen_to_do(source, tmp_path):
    recipe = Recipe.parse(RECIPE.replace("SOURCE", str(source)), "searched")
    plan, store = Plan(recipe), Store(tmp_path)
    plan.refuse()
    assert plan.passes.size_unknown == ["unet"]
    assert describe.recipe(recipe, store)["sizes"] == "without the passes of unet, which choose when they run"
    found = Results(store)[plan.networks.last["unet"]].metadata
    assert found["prune"]["curve"][-1]["share"] <= 0.9
    assert plan.passes.summaries("unet") == ("prune: found for 90% of the parameters", "not distilled")


def test_what_is_left_learns_from_the_modules_that_it_was(source, tmp_path):
    (tmp_path / "data").mkdir()
    folder = lessons.pictures(tmp_path / "data")
    passes = [
        {"prune": {"search": {"budget": 0.9, "calls": 2}}},
        {"distill": {"data": str(folder), "steps": 1, "batch": 2, "features": "resnet"}},
    ]
    text = RECIPE.replace("SOURCE", str(source))
    recipe = Recipe.parse(text, "searched", overrides=[f"components.unet.passes={json.dumps(passes)}"])
    (made,) = build.distill(recipe, Store(tmp_path / "store"), lambda *_, **__: None).values()
    pairs = dict(json.loads((made / "metadata.json").read_text())["metadata"]["distill"]["features"])
    (cut,) = (path.parent for path in (tmp_path / "store").glob("entries/*/files/metadata.json") if path.parent != made)
    metadata = json.loads((cut / "metadata.json").read_text())["metadata"]["prune"]
    moved = Prune(blocks=metadata["blocks"]).moved(models.unet_xl().config, {})
    assert pairs
    assert all(search.came_from(own, moved) == other for own, other in pairs.items())
