"""Networks that passes make: what is kept of them, from which each is made, and what they depend on."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.errors import RecipeError
from exporter.part import Part
from exporter.stages import networks
from exporter.stages.networks import MadeNetwork, family_of
from tests.exporter.stages.planned import changed, names, plan
from tests.exporter.stages.test_load import Family

PRUNE = "components.unet.passes=[{prune: {blocks: {mid_block: null}}}]"
SWAP = "components.vae_decoder.passes=[{swap: {source: sd-v1-5, weights: random, seed: 1}}]"


class Kept:
    """A model of diffusers', as far as it is kept."""

    def __init__(self, name="a"):
        self.name = name

    def save_pretrained(self, folder):
        (folder / "config.json").write_text(json.dumps({"name": self.name}))


def test_a_network_is_kept_with_what_its_pass_says(tmp_path):
    made = MadeNetwork(tmp_path)
    made.write(Kept(), ("a note", "ein Gruß"), {"search": {"best": 3}})
    assert made.notes == ["a note", "ein Gruß"]
    assert made.metadata == {"search": {"best": 3}}
    assert json.loads((tmp_path / "config.json").read_text()) == {"name": "a"}


def test_a_family_stands_over_every_network_that_was_made():
    made = family_of(Family(), {"unet": MadeNetwork(Path("u")), "vae_decoder": MadeNetwork(Path("v"))})
    assert made.checkpoint.replaced == (("unet", Path("u")), ("vae_decoder", Path("v")))
    assert family_of(Family(), {}) == Family()


def test_a_pass_that_remakes_has_a_stage_and_what_depends_on_the_weights_depends_on_it():
    chosen = plan(PRUNE)
    made = chosen.networks.of["unet"]["prune"]
    assert made.name == ("pass", "unet, prune")
    assert chosen.networks.last == {"unet": made}
    assert chosen.networks.weights("unet") is made
    assert chosen.networks.weights("text_encoder") == chosen.checkpoint.digest("text_encoder")
    assert chosen.networks.weights("vae_decoder") == chosen.checkpoint.digest("vae")
    assert not made.resumes


def test_without_passes_there_are_no_networks():
    chosen = plan().networks
    assert (dict(chosen.of), chosen.last, chosen.stages) == ({}, {}, ())


def test_each_pass_is_made_from_the_one_before():
    both = "components.unet.passes=[{prune: {blocks: {mid_block: null}}}, {sparsify: {}}]"
    made = plan(both).networks.of["unet"]
    first, second = made["prune"], made["sparsify"]
    assert first in second.needs
    assert plan(both).networks.last["unet"].name == second.name


@pytest.fixture
def taught(tmp_path):
    (tmp_path / "0.png").write_bytes(b"read later")
    (tmp_path / "0.txt").write_text("a red circle")
    return f"components.unet.passes=[{{prune: {{blocks: {{mid_block: null}}}}}}, {{distill: {{data: {tmp_path}, steps: 1}}}}]"


def test_a_pass_that_trains_encodes_its_pictures_first_and_can_leave_off(taught):
    chosen = plan(taught).networks
    assert names(chosen.stages) == ["pass unet, prune", "encode unet, distill", "pass unet, distill"]
    student = chosen.of["unet"]["distill"]
    assert student.resumes
    assert {stage.name for stage in student.needs} == {("pass", "unet, prune"), ("encode", "unet, distill")}


def test_a_trajectory_is_played_before_it_is_learned(taught):
    text = taught.replace("distill:", "trajectory:").replace("steps: 1", "steps: 1, to: 2")
    chosen = plan(
        text.replace("{prune: {blocks: {mid_block: null}}}, ", ""), "sampler.steps=[2]", "sampler.guidance={mode: none}"
    ).networks
    assert names(chosen.stages) == ["encode unet, trajectory", "play unet, trajectory", "pass unet, trajectory"]
    played = chosen.stages[1]
    assert chosen.stages[0] in played.needs
    assert played in chosen.of["unet"]["trajectory"].needs


def test_a_swapped_network_depends_on_the_other_model_alone():
    other = changed(plan(SWAP), plan(SWAP.replace("seed: 1", "seed: 2")))
    assert "pass vae_decoder, swap" in other
    assert "pass vae_decoder, swap" not in changed(plan(SWAP), plan(SWAP, "model.seed=5"))


def test_what_has_to_see_the_source_wants_it_recorded():
    search = "components.unet.passes=[{prune: {search: {budget: 0.5}}}]"
    chosen = plan(search)
    assert chosen.recorded in chosen.networks.of["unet"]["prune"].needs
    with pytest.raises(RecipeError, match=r"checks\.skip: prune of unet has to see what the source does"):
        plan(search, "checks.skip=no time").networks  # noqa: B018


def test_a_swap_keeps_the_other_s_network_and_says_whose(tmp_path):
    other = SimpleNamespace(provenance={"source": "x/y", "revision": "c0ffee"}, module=Kept)
    networks._swap(tmp_path, None, "vae_decoder", other)
    assert MadeNetwork(tmp_path).notes == ["vae_decoder: the network is another model's: source x/y, revision c0ffee"]
    assert json.loads((tmp_path / "config.json").read_text()) == {"name": "vae_decoder"}


@dataclass(frozen=True)
class Whole(Family):
    """Whose parts are diffusers' models in a wrapper; it says over which networks it was loaded."""

    loaded: list = field(default_factory=list)

    def replacing(self, *, checkpoint):
        return replace(self, checkpoint=checkpoint)

    def part(self, name, precision):
        self.loaded.append(self.checkpoint.replaced)
        network = SimpleNamespace(config={}, save_pretrained=Kept(precision).save_pretrained)
        module = SimpleNamespace(unet=network, named_children=lambda: [("unet", network)])
        return Part(name, "denoiser", module, self.signature(name), precision)


def change(folder, results, before=None, seen=None, family=None):
    asked = []

    def step(part):
        asked.append(part)
        return replace(part, notes=("made",), metadata=(("cut", [1]),))

    networks._change(folder, results, step, "unet", family or Whole(), before or {}, seen)
    return asked[0]


def test_a_pass_changes_the_network_that_is_there_in_fp32(tmp_path):
    given = change(tmp_path, {})
    assert (given.precision, given.cases) == ("fp32", ())
    assert MadeNetwork(tmp_path).notes == ["made"]
    assert MadeNetwork(tmp_path).metadata == {"cut": [1]}


def test_the_network_that_is_there_is_the_last_pass_s(tmp_path):
    family = Whole()
    results = {"one": MadeNetwork(Path("first")), "two": MadeNetwork(Path("second"))}
    given = change(tmp_path, results, before={"prune": "one", "distill": "two"}, family=family)
    assert family.loaded == [(("unet", Path("second")),)]
    assert given.signature == "unet with 0 other networks", "under the source's contract"


def test_a_pass_that_has_to_sees_the_recorded_calls(tmp_path):
    recording = SimpleNamespace(calls=lambda part: (f"calls of {part}",))
    assert change(tmp_path, {"recording": recording}, seen="recording").cases == ("calls of unet",)


class Half:
    """A VAE whose state is of two halves."""

    def __init__(self, **state):
        self.state, self.config = state, {}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state

    def save_pretrained(self, folder):
        (folder / "config.json").write_text(json.dumps(self.state))


def teach(monkeypatch, tmp_path, part, whole):
    monkeypatch.setattr(networks.context, "plain", lambda family, checkpoint: replace(family, checkpoint=checkpoint))
    monkeypatch.setattr(networks, "_lesson", lambda *_: "a lesson")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "curve.jsonl").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    trained = Half(decoder=2)
    module = SimpleNamespace(vae=trained, named_children=lambda: [("vae", trained)])

    def learn(student, lesson):
        assert (student.precision, lesson) == ("fp32", "a lesson")
        return replace(student, module=module, notes=("taught",))

    family = replace(Whole(), checkpoint=SimpleNamespace(replaced=(), module=lambda _: whole))
    taught = SimpleNamespace(part=part, before={}, family=family, step=SimpleNamespace(teach=learn))
    networks._teach(tmp_path / "folder", SimpleNamespace(unfinished=tmp_path / "unfinished"), taught)
    return tmp_path / "folder"


def test_the_half_of_a_vae_that_nobody_taught_stays_what_it_was(monkeypatch, tmp_path):
    folder = teach(monkeypatch, tmp_path, "vae_decoder", Half(encoder=1, decoder=1))
    assert json.loads((folder / "config.json").read_text()) == {"encoder": 1, "decoder": 2}
    assert (folder / "curve.jsonl").read_text() == "{}\n"
    assert MadeNetwork(folder).notes == ["taught"]


def test_any_other_network_is_kept_as_it_was_taught(monkeypatch, tmp_path):
    folder = teach(monkeypatch, tmp_path, "unet", Half(encoder=1, decoder=1))
    assert json.loads((folder / "config.json").read_text()) == {"decoder": 2}
